//! What arrives from the network and means harm: requests that can be read in two ways, clients that send or take next
//! to nothing, versions of TLS that are broken, and floods over HTTP/2. A real control service, a debug build included,
//! answers nobody more than they may see, keeps its memory bounded, and serves others meanwhile.
//!
//! Files: `victim` (the control service with its users, and what it holds), `http1` (requests byte by byte), `slow`
//! (clients that take their time), `tls` (handshakes byte by byte), `handshakes` (those left undone), `http2` (frames),
//! `floods` (what they do).

mod floods;
mod handshakes;
mod http1;
mod http2;
mod slow;
mod tls;
mod victim;

use self::victim::Victim;
use crate::{kit::Result, suite::TestAlone};

/// Names and bodies, for `main`.
pub const TESTS: &[TestAlone] = &[
    ("network_abuse::a_path_written_otherwise_is_authorised_as_what_is_served", || run(http1::odd_targets)),
    ("network_abuse::headers_that_claim_an_identity_or_a_method_change_nothing", || run(http1::claims)),
    ("network_abuse::a_request_whose_length_is_ambiguous_is_refused", || run(http1::ambiguous_lengths)),
    ("network_abuse::a_chunked_body_hides_no_request_and_has_a_bound", || run(http1::chunks)),
    ("network_abuse::oversized_heads_are_refused", || run(http1::oversized_heads)),
    ("network_abuse::broken_versions_of_tls_are_refused", || run(tls::old_versions)),
    ("network_abuse::a_downgrade_of_tls_shows", || run(tls::downgrade)),
    ("network_abuse::renegotiation_is_refused", || run(tls::renegotiation)),
    ("network_abuse::slow_heads_and_bodies_keep_nobody_out_and_end", || run(slow::heads_and_bodies)),
    ("network_abuse::thousands_of_handshakes_left_undone_hold_up_nobody_and_end", || run(handshakes::left_undone)),
    ("network_abuse::floods_of_frames_end_their_connection_or_cost_little", || run(floods::frames)),
    ("network_abuse::answers_without_a_window_hold_bounded_memory", || run(floods::closed_windows)),
];

fn run<F: Future<Output = Result>>(test: impl Fn(Victim) -> F) -> Result {
    let dir = tempfile::Builder::new().prefix("flabuse-").tempdir()?;
    // The directory outlives the service.
    tokio::runtime::Runtime::new()?.block_on(async { test(Victim::start(dir.path()).await?).await })
}
