//! The flags of the audit log, by kube-apiserver's names. Their defaults stand in [`fairlead_control::audit::options`].

use std::{path::PathBuf, time::Duration};

use fairlead_control::audit::options::{
    AuditLogFormat, AuditLogOptions, AuditMode, AuditOptionError, AuditOptions, AuditVersion, AuditWebhookOptions,
    BatchThrottle, TruncateOptions,
};

use super::flag_values::{parse_bool, parse_duration};

/// What is audited, and where its events go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Audit log")]
pub struct AuditArgs {
    /// Policy (audit.k8s.io/v1) that says which requests are recorded and how much of each; without it none is
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// File that gets one line per event, - for standard output; it is rotated, and nobody else may read it
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<String>,
    /// Size at which another log file is begun [default: 100]
    #[arg(long, value_name = "MIB")]
    pub audit_log_maxsize: Option<u32>,
    /// How many older log files are kept, 0 for all [default: 0]
    #[arg(long, value_name = "COUNT")]
    pub audit_log_maxbackup: Option<usize>,
    /// How many days older log files are kept, 0 for ever [default: 0]
    #[arg(long, value_name = "DAYS")]
    pub audit_log_maxage: Option<u32>,
    /// Compress older log files with gzip
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_log_compress: Option<bool>,
    /// How an event is written: json, or legacy for a line of text [default: json]
    #[arg(long, value_name = "FORMAT")]
    pub audit_log_format: Option<AuditLogFormat>,
    /// Whether requests wait for the log: batch (no; events beyond the buffer are lost), blocking (yes), or
    /// blocking-strict (yes, and a request whose first event cannot be written is refused) [default: blocking]
    #[arg(long, value_name = "MODE")]
    pub audit_log_mode: Option<AuditMode>,
    /// How many events wait to be written, with --audit-log-mode=batch [default: 10000]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub audit_log_batch_buffer_size: Option<usize>,
    /// Version of the events in the log: audit.k8s.io/v1 [default: audit.k8s.io/v1]
    #[arg(long, value_name = "VERSION")]
    pub audit_log_version: Option<AuditVersion>,
    /// Leave the objects out of events that are too large for the log, and events that still are
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_log_truncate_enabled: Option<bool>,
    /// The most bytes of events that are written to the log together [default: 10485760]
    #[arg(long, value_name = "BYTES")]
    pub audit_log_truncate_max_batch_size: Option<i64>,
    /// The most bytes of an event in the log [default: 102400]
    #[arg(long, value_name = "BYTES")]
    pub audit_log_truncate_max_event_size: Option<i64>,
    /// Kubeconfig of a server that gets the events, as an EventList by POST
    #[arg(long, value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether requests wait for the server: batch, blocking or blocking-strict, as for the log [default: batch]
    #[arg(long, value_name = "MODE")]
    pub audit_webhook_mode: Option<AuditMode>,
    /// Pause before events are sent again after the first failure; later ones are longer, and after five attempts the
    /// events are lost [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub audit_webhook_initial_backoff: Option<Duration>,
    /// How many events wait to be sent, with --audit-webhook-mode=batch [default: 10000]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub audit_webhook_batch_buffer_size: Option<usize>,
    /// The most events that are sent together [default: 400]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub audit_webhook_batch_max_size: Option<usize>,
    /// The longest that an event waits for others [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub audit_webhook_batch_max_wait: Option<Duration>,
    /// Limit how often events are sent [default: true]
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_webhook_batch_throttle_enable: Option<bool>,
    /// How often events are sent at most, a second on average [default: 10]
    #[arg(long, value_name = "COUNT", value_parser = parse_rate)]
    pub audit_webhook_batch_throttle_qps: Option<f64>,
    /// How often events are sent at most at once, after a pause [default: 15]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_webhook_batch_throttle_burst: Option<u32>,
    /// Version of the events that are sent: audit.k8s.io/v1 [default: audit.k8s.io/v1]
    #[arg(long, value_name = "VERSION")]
    pub audit_webhook_version: Option<AuditVersion>,
    /// Leave the objects out of events that are too large to be sent, and events that still are
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_webhook_truncate_enabled: Option<bool>,
    /// The most bytes of events that are sent together [default: 10485760]
    #[arg(long, value_name = "BYTES")]
    pub audit_webhook_truncate_max_batch_size: Option<i64>,
    /// The most bytes of an event that is sent [default: 102400]
    #[arg(long, value_name = "BYTES")]
    pub audit_webhook_truncate_max_event_size: Option<i64>,
}

impl AuditArgs {
    /// What they say, with the defaults.
    ///
    /// # Errors
    /// [`AuditOptionError`], of sizes that do not fit one another.
    pub fn options(&self) -> Result<AuditOptions, AuditOptionError> {
        let (log, webhook) = (self.log()?, self.webhook()?);
        Ok(AuditOptions { policy_file: self.audit_policy_file.clone(), log, webhook })
    }

    fn log(&self) -> Result<Option<AuditLogOptions>, AuditOptionError> {
        let Some(path) = self.audit_log_path.as_deref().filter(|path| !path.is_empty()) else { return Ok(None) };
        let defaults = AuditLogOptions::new(path.into());
        let sizes = (self.audit_log_truncate_max_event_size, self.audit_log_truncate_max_batch_size);
        Ok(Some(AuditLogOptions {
            truncate: truncate("log", self.audit_log_truncate_enabled, sizes)?,
            max_age_days: self.audit_log_maxage.unwrap_or(defaults.max_age_days),
            max_backups: self.audit_log_maxbackup.unwrap_or(defaults.max_backups),
            max_size_mib: self.audit_log_maxsize.unwrap_or(defaults.max_size_mib),
            compress: self.audit_log_compress.unwrap_or(defaults.compress),
            format: self.audit_log_format.unwrap_or(defaults.format),
            mode: self.audit_log_mode.unwrap_or(defaults.mode),
            buffer_size: self.audit_log_batch_buffer_size.unwrap_or(defaults.buffer_size),
            ..defaults
        }))
    }

    fn webhook(&self) -> Result<Option<AuditWebhookOptions>, AuditOptionError> {
        let Some(file) = self.audit_webhook_config_file.clone() else { return Ok(None) };
        let mut options = AuditWebhookOptions::new(file);
        let sizes = (self.audit_webhook_truncate_max_event_size, self.audit_webhook_truncate_max_batch_size);
        options.truncate = truncate("webhook", self.audit_webhook_truncate_enabled, sizes)?;
        options.mode = self.audit_webhook_mode.unwrap_or(options.mode);
        options.initial_backoff = self.audit_webhook_initial_backoff.unwrap_or(options.initial_backoff);
        let batch = &mut options.batch;
        batch.buffer_size = self.audit_webhook_batch_buffer_size.unwrap_or(batch.buffer_size);
        batch.max_size = self.audit_webhook_batch_max_size.unwrap_or(batch.max_size);
        batch.max_wait = self.audit_webhook_batch_max_wait.unwrap_or(batch.max_wait);
        let throttle = BatchThrottle::default();
        batch.throttle = self.audit_webhook_batch_throttle_enable.unwrap_or(true).then(|| BatchThrottle {
            qps: self.audit_webhook_batch_throttle_qps.unwrap_or(throttle.qps),
            burst: self.audit_webhook_batch_throttle_burst.unwrap_or(throttle.burst),
        });
        Ok(Some(options))
    }
}

/// How large events of a backend may be. As in Kubernetes, sizes are checked though they may not be used.
fn truncate(
    plugin: &'static str,
    is_enabled: Option<bool>,
    (event_size, batch_size): (Option<i64>, Option<i64>),
) -> Result<Option<TruncateOptions>, AuditOptionError> {
    let options = TruncateOptions::of_flags(plugin, event_size, batch_size)?;
    Ok(is_enabled.unwrap_or(false).then_some(options))
}

/// A number that is none, or not above 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a positive number")]
struct NotPositive;

fn parse_count(text: &str) -> Result<usize, NotPositive> {
    text.parse().ok().filter(|count| *count > 0).ok_or(NotPositive)
}

fn parse_rate(text: &str) -> Result<f64, NotPositive> {
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0).ok_or(NotPositive)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use fairlead_control::audit::options::AuditLogTarget;

    use super::*;

    #[derive(Parser)]
    struct Verb {
        #[command(flatten)]
        audit: AuditArgs,
    }

    fn parse(flags: &[&str]) -> anyhow::Result<AuditOptions> {
        Ok(Verb::try_parse_from(["verb"].iter().chain(flags))?.audit.options()?)
    }

    #[test]
    fn the_defaults_are_those_of_kube_apiserver() {
        let nothing = parse(&[]).unwrap();
        assert!(nothing.policy_file.is_none() && nothing.log.is_none() && nothing.webhook.is_none());
        let options = parse(&["--audit-log-path=-", "--audit-webhook-config-file=/k"]).unwrap();
        let (log, webhook) = (options.log.unwrap(), options.webhook.unwrap());
        assert_eq!((log.target, log.mode, log.buffer_size), (AuditLogTarget::Stdout, AuditMode::Blocking, 10_000));
        assert_eq!((webhook.mode, webhook.initial_backoff), (AuditMode::Batch, Duration::from_secs(10)));
        let batch = webhook.batch;
        assert_eq!((batch.buffer_size, batch.max_size, batch.max_wait.as_secs()), (10_000, 400, 30));
        let throttle = batch.throttle.unwrap();
        assert!((throttle.qps - 10.0).abs() < f64::EPSILON && throttle.burst == 15);
        assert_eq!((log.truncate, webhook.truncate), (None, None));
        let cut = parse(&["--audit-log-path=-", "--audit-log-version=audit.k8s.io/v1", "--audit-log-truncate-enabled"]);
        let sizes = TruncateOptions { max_event_size: 102_400, max_batch_size: 10_485_760 };
        assert_eq!(cut.unwrap().log.unwrap().truncate, Some(sizes));
    }

    #[test]
    fn wrong_values_are_told_what_is_right() {
        for (flag, told) in [
            ("--audit-log-mode=async", "allowed modes are batch, blocking and blocking-strict"),
            ("--audit-log-format=xml", "allowed formats are json and legacy"),
            ("--audit-log-batch-buffer-size=0", "must be a positive number"),
            ("--audit-webhook-batch-throttle-qps=-1", "must be a positive number"),
            ("--audit-webhook-initial-backoff=soon", "a duration is written such as 30s"),
            (
                "--audit-log-version=audit.k8s.io/v1beta1",
                "invalid group version, allowed versions are [\"audit.k8s.io/v1\"]",
            ),
            ("--audit-webhook-version=v1", "invalid group version, allowed versions are [\"audit.k8s.io/v1\"]"),
        ] {
            let error = parse(&[flag]).err().unwrap().to_string();
            assert!(error.contains(told), "{flag}: {error}");
        }
        let refused = |flag: &str| parse(&["--audit-log-path=-", flag]).err().unwrap().to_string();
        assert_eq!(
            refused("--audit-log-truncate-max-event-size=0"),
            "invalid audit truncate log max event size 0, must be a positive number"
        );
        assert_eq!(
            refused("--audit-log-truncate-max-batch-size=5"),
            "invalid audit truncate log max batch size 5, must be greater than max event size (102400)"
        );
        let off = parse(&["--audit-webhook-config-file=/k", "--audit-webhook-batch-throttle-enable=false"]).unwrap();
        assert!(off.webhook.unwrap().batch.throttle.is_none());
    }
}
