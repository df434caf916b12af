//! TLS connections to the API: how many came, and why handshakes failed.

use std::{
    fmt, io,
    sync::atomic::{AtomicU64, Ordering},
};

use rustls::AlertDescription;

use super::Scrape;

/// Counts connections. Shared by all of them.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    opened: AtomicU64,
    failures: [AtomicU64; HandshakeFailure::ALL.len()],
}

/// Why there was no TLS. A client's certificate that is not trusted is no reason: its requests are answered 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client took too long.
    TimedOut,
    /// The client went: a health check of a load balancer, or one that gave up.
    Closed,
    /// The client does not trust this server's certificate: it has another CA, or asks for a name that is not in it.
    ServerCertificate,
    /// No version, cipher or protocol that both know.
    Incompatible,
    /// It was no TLS: plain HTTP, most likely.
    Malformed,
    Other,
}

impl HandshakeFailure {
    const ALL: [Self; 6] =
        [Self::TimedOut, Self::Closed, Self::ServerCertificate, Self::Incompatible, Self::Malformed, Self::Other];

    /// By what TLS, or the connection under it, said.
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::of_tls(error),
            None if matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) => {
                Self::Closed
            }
            None => Self::Other,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA,
            ) => Self::ServerCertificate,
            rustls::Error::AlertReceived(
                AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
                | AlertDescription::NoApplicationProtocol,
            )
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::NoApplicationProtocol => Self::Incompatible,
            rustls::Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => {
                Self::Closed
            }
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. }
            | rustls::Error::PeerMisbehaved(_)
            | rustls::Error::PeerSentOversizedRecord
            | rustls::Error::DecryptError => Self::Malformed,
            _ => Self::Other,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::ServerCertificate => "server_certificate",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

impl ConnectionMetrics {
    /// One was accepted.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Its handshake failed. One that is cut to make room for others does not count here.
    pub fn handshake_failed(&self, why: HandshakeFailure) {
        for (failure, count) in HandshakeFailure::ALL.iter().zip(&self.failures) {
            if *failure == why {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells what was counted.
    pub fn tell(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let opened = self.opened.load(Ordering::Relaxed);
        scrape.counters("fairlead_connections_opened", "Connections that were accepted.", [(&[][..], opened)])?;
        let labels = HandshakeFailure::ALL.map(|failure| [("reason", failure.reason())]);
        let counts = self.failures.each_ref().map(|count| count.load(Ordering::Relaxed));
        let failures = labels.iter().map(|labels| labels as super::Labels<'_>).zip(counts);
        // Kubernetes has the name, and no reasons.
        scrape.counters("apiserver_tls_handshake_errors", "TLS handshakes that failed, by reason.", failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn failures_are_told_by_their_reason() {
        let of_tls = |error: rustls::Error| HandshakeFailure::of(&io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, expected) in [
            (of_tls(rustls::Error::AlertReceived(AlertDescription::UnknownCA)), HandshakeFailure::ServerCertificate),
            (of_tls(rustls::Error::NoApplicationProtocol), HandshakeFailure::Incompatible),
            (of_tls(rustls::InvalidMessage::InvalidContentType.into()), HandshakeFailure::Malformed),
            (of_tls(rustls::Error::General("?".into())), HandshakeFailure::Other),
            (HandshakeFailure::of(&io::ErrorKind::UnexpectedEof.into()), HandshakeFailure::Closed),
            (HandshakeFailure::of(&io::ErrorKind::OutOfMemory.into()), HandshakeFailure::Other),
        ] {
            assert_eq!(error, expected);
        }
        let counts = std::sync::Arc::new(ConnectionMetrics::default());
        counts.opened();
        for failure in HandshakeFailure::ALL {
            counts.handshake_failed(failure);
        }
        counts.handshake_failed(HandshakeFailure::Closed);
        let metrics = Metrics::default();
        metrics.add(move |scrape| counts.tell(scrape));
        let text = metrics.render().unwrap();
        for line in [
            "fairlead_connections_opened_total 1",
            "apiserver_tls_handshake_errors_total{reason=\"timeout\"} 1",
            "apiserver_tls_handshake_errors_total{reason=\"closed\"} 2",
            "apiserver_tls_handshake_errors_total{reason=\"other\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in\n{text}");
        }
    }
}
