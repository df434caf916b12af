//! Renews a certificate while the agent runs, as the kubelet does: once 70 to 90 % of its life are over, and again with
//! back-off until there is a new one.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::certificate::{Certificate, Validity};

/// A certificate that is replaced where it is in use.
#[async_trait::async_trait]
pub trait Renewable: Send + Sync {
    /// For what the certificate is, in messages.
    fn purpose(&self) -> &'static str;

    /// Asks for another. `expired`: the present one convinces nobody any more.
    async fn request(&self, expired: bool) -> Result<Certificate, BoxError>;

    /// Keeps `certificate` for the next start and uses it from now on.
    fn take_up(&self, certificate: &Certificate) -> Result<(), BoxError>;
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One certificate under renewal.
pub struct Renewal {
    subject: Box<dyn Renewable>,
    schedule: Schedule,
    told: watch::Sender<Option<Validity>>,
}

impl Renewal {
    /// `present` is what is in use now.
    pub fn new(subject: impl Renewable + 'static, present: Validity) -> Self {
        let told = watch::Sender::new(Some(present));
        Self { subject: Box::new(subject), schedule: Schedule::new(present, rand::random()), told }
    }

    /// Tells from when until when the certificate holds that is in use: now, and whenever it is another.
    pub fn telling(self, told: watch::Sender<Option<Validity>>) -> Self {
        told.send_replace(Some(self.schedule.present));
        Self { told, ..self }
    }

    /// Until `stop`.
    pub async fn run(&mut self, stop: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = self.tick(SystemTime::now()) => next,
            };
            // A clock that is set, or a machine that slept, is noticed within that time.
            let wait = next.duration_since(SystemTime::now()).unwrap_or_default().min(LONGEST_SLEEP);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Renews where that is due at `now`; returns when there is something to do again.
    pub async fn tick(&mut self, now: SystemTime) -> SystemTime {
        if now < self.schedule.due() {
            return self.schedule.due();
        }
        match self.renew(now).await {
            Ok(renewed) => {
                tracing::info!(purpose = self.subject.purpose(), "renewed a certificate of this node");
                self.schedule = Schedule::new(renewed, rand::random());
                self.told.send_replace(Some(renewed));
            }
            Err(error) => {
                self.schedule.failed(now);
                tracing::warn!(
                    purpose = self.subject.purpose(),
                    error = &*error as &dyn std::error::Error,
                    "a certificate of this node could not be renewed, trying again"
                );
            }
        }
        self.schedule.due()
    }

    async fn renew(&self, now: SystemTime) -> Result<Validity, BoxError> {
        let certificate = self.subject.request(self.schedule.present.until <= now).await?;
        let validity = certificate.validity()?;
        self.subject.take_up(&certificate)?;
        Ok(validity)
    }
}

/// When to renew. Pure: time and chance come in.
struct Schedule {
    present: Validity,
    /// From 0 to 1: so that nodes that joined together do not renew together.
    jitter: f64,
    failures: u32,
    failed_at: SystemTime,
}

impl Schedule {
    fn new(present: Validity, jitter: f64) -> Self {
        Self { present, jitter, failures: 0, failed_at: SystemTime::UNIX_EPOCH }
    }

    fn due(&self) -> SystemTime {
        let life = self.present.until.duration_since(self.present.from).unwrap_or_default();
        // Dates that no clock reaches are renewed at once.
        let renew_at =
            self.present.from.checked_add(life.mul_f64(0.7 + 0.2 * self.jitter)).unwrap_or(SystemTime::UNIX_EPOCH);
        match self.failures {
            0 => renew_at,
            failures => renew_at.max(self.failed_at.checked_add(back_off(failures)).unwrap_or(self.failed_at)),
        }
    }

    fn failed(&mut self, now: SystemTime) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
    }
}

/// Doubles from two seconds to five minutes.
fn back_off(failures: u32) -> Duration {
    FIRST_BACK_OFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_BACK_OFF)
}

const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
const LAST_BACK_OFF: Duration = Duration::from_secs(300);
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_is_renewed_when_seventy_to_ninety_percent_of_its_life_are_over() {
        let life = Validity { from: at(1000), until: at(2000) };
        let due = |jitter| Schedule::new(life, jitter).due();
        assert_eq!((due(0.0), due(0.5), due(1.0)), (at(1700), at(1800), at(1900)));
        let upside_down = Validity { from: at(2000), until: at(1000) };
        assert_eq!(Schedule::new(upside_down, 0.5).due(), at(2000), "nonsense is renewed, and does not panic");
    }

    #[test]
    fn failures_are_tried_again_ever_more_seldom_and_at_least_every_five_minutes() {
        let mut schedule = Schedule::new(Validity { from: at(0), until: at(100) }, 0.0);
        let mut now = at(70);
        let mut waits = Vec::new();
        for _ in 0..10 {
            schedule.failed(now);
            waits.push(schedule.due().duration_since(now).expect("later").as_secs());
            now = schedule.due();
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(back_off(u32::MAX), LAST_BACK_OFF);
    }
}
