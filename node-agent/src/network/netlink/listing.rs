//! Lists of what the kernel has: whole, and as it was at one moment.
//!
//! A socket takes one list at a time: the kernel refuses a second with EBUSY. And a list that changed while the kernel
//! wrote it, which it does in pieces, may lack what was there all the time: the kernel marks it, and it is asked again.

use std::{num::NonZeroI32, time::Duration};

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Netlink, NetlinkError, failed};

/// How long lists that change meanwhile are asked for again. With two programs that add and remove links as fast as two
/// cores can, 220 links (of 110 pods) were whole at the third attempt at the latest, within 47 ms; 1,000 links took up
/// to 17 attempts and a third of a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the second attempt; doubled for each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// How long the kernel may say nothing within a list. It waits for its own lock before each piece, which it holds for
/// as long as it takes to remove many links at once.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

impl Netlink {
    /// All answers to `question`, as far as `read` knows them.
    pub(super) async fn list<T: Send + 'static>(
        &self,
        what: &str,
        question: RouteNetlinkMessage,
        read: fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let (netlink, what) = (self.clone(), what.to_owned());
        // A task of its own: a list that nobody waits for any more still has to be taken from the socket whole.
        let listing = tokio::spawn(async move { netlink.list_patiently(what, question, read).await });
        listing.await.unwrap_or_else(|_| Err(failed("list: the task ended early", rtnetlink::Error::RequestFailed)))
    }

    async fn list_patiently<T>(
        &self,
        what: String,
        question: RouteNetlinkMessage,
        read: fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let alone = self.socket.listing.lock().await;
            match self.attempt(question.clone(), read).await {
                Ok(Attempt::Whole(list)) => return Ok(list),
                Ok(Attempt::Changed) if started.elapsed() >= PATIENCE => return Err(NetlinkError::Unsteady { what }),
                Ok(Attempt::Changed) => {}
                Ok(Attempt::Endless) => {
                    self.reopen().await.map_err(NetlinkError::Open)?;
                    return Err(NetlinkError::Endless { what });
                }
                Err(error) => {
                    // Of a connection that has gone, nothing is to be had any more.
                    if matches!(error, rtnetlink::Error::RequestFailed) {
                        self.reopen().await.map_err(NetlinkError::Open)?;
                    }
                    return Err(failed(format!("list {what}"), error));
                }
            }
            // Others may ask meanwhile.
            drop(alone);
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_PAUSE);
        }
    }

    async fn attempt<T>(
        &self,
        question: RouteNetlinkMessage,
        read: fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Attempt<T>, rtnetlink::Error> {
        let mut request = NetlinkMessage::from(question);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut stream = self.handle().request(request)?;
        let mut answers = Vec::new();
        loop {
            match timeout(self.socket.silence, stream.next()).await {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => return whole(answers, read),
                Err(_) => return Ok(Attempt::Endless),
            }
        }
    }
}

/// What came of asking for a list.
#[derive(Debug, PartialEq, Eq)]
enum Attempt<T> {
    /// As it was at one moment.
    Whole(Vec<T>),
    /// It changed as it was written.
    Changed,
    /// The kernel went silent before the end: it stopped where the socket's buffer was full, or lost the rest.
    Endless,
}

/// The list that the kernel's messages make. Pure.
fn whole<T>(
    answers: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    read: fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Attempt<T>, rtnetlink::Error> {
    let (mut list, mut changed, mut ended) = (Vec::new(), false, false);
    for answer in answers {
        changed |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => list.extend(read(message)),
            NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error)),
            NetlinkPayload::Done(done) => {
                ended = true;
                // A list that the kernel broke off ends with the reason.
                if let Some(code) = NonZeroI32::new(done.code).filter(|code| code.is_negative()) {
                    let mut error = ErrorMessage::default();
                    error.code = Some(code);
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            _ => {}
        }
    }
    match (changed, ended) {
        (true, _) => Ok(Attempt::Changed),
        (false, true) => Ok(Attempt::Whole(list)),
        // The connection has gone.
        (false, false) => Err(rtnetlink::Error::RequestFailed),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use futures::future::try_join_all;
    use netlink_packet_route::link::LinkMessage;
    use rtnetlink::packet_core::DoneMessage;
    use tokio_util::sync::CancellationToken;

    use super::{super::LiveConnection, *};
    use crate::network::namespaces::{TestMachine, can_make_namespaces};

    #[test]
    fn lists_that_are_asked_at_once_through_one_socket_are_all_answered() {
        if !can_make_namespaces() {
            return;
        }
        let machine = TestMachine::new();
        machine.wait(async {
            let netlink = Netlink::open().unwrap();
            // Some that nobody waits for.
            for _ in 0..50 {
                let left = netlink.clone();
                let asking = tokio::spawn(async move { left.links().await });
                tokio::task::yield_now().await;
                asking.abort();
            }
            let (links, routes) = (0..50).map(|_| (netlink.links(), netlink.routes())).unzip::<_, _, Vec<_>, Vec<_>>();
            let (links, routes) = tokio::join!(try_join_all(links), try_join_all(routes));
            assert!(links.unwrap().iter().all(|links| links.iter().any(|link| link.name == "lo")));
            assert_eq!(routes.unwrap().len(), 50);
        });
    }

    #[test]
    fn another_socket_takes_the_place_of_one_whose_list_does_not_end() {
        if !can_make_namespaces() {
            return;
        }
        let (machine, other) = (TestMachine::new(), TestMachine::new());
        let inside = std::fs::File::open(other.path()).unwrap();
        machine.wait(async move {
            let netlinks = [Netlink::open().unwrap(), Netlink::open_in(inside).await.unwrap()];
            let (here, there) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
            for (netlink, address) in netlinks.iter().zip([here, there]) {
                netlink.ensure_address(netlink.loopback().await.unwrap(), address).await.unwrap();
                netlink.clone().reopen().await.unwrap();
                let addresses = netlink.addresses().await.unwrap();
                let seen = |address| addresses.iter().any(|held| held.address == address);
                assert_eq!([seen(here), seen(there)], [address == here, address == there], "in the same namespace");
            }
        });
    }

    #[tokio::test]
    async fn a_list_that_does_not_end_is_an_error_and_the_next_one_is_answered() {
        let (never_polled, handle, _messages) = rtnetlink::new_connection().unwrap();
        let mut netlink = Netlink::open().unwrap();
        Arc::get_mut(&mut netlink.socket).unwrap().silence = Duration::from_millis(100);
        netlink.socket.connection.store(Arc::new(LiveConnection { handle, ended: CancellationToken::new() }));
        assert!(matches!(netlink.links().await, Err(NetlinkError::Endless { .. })));
        assert!(!netlink.links().await.unwrap().is_empty());

        // The same for a connection that has gone.
        let (gone, handle, _messages) = rtnetlink::new_connection().unwrap();
        drop((gone, never_polled));
        netlink.socket.connection.store(Arc::new(LiveConnection { handle, ended: CancellationToken::new() }));
        assert!(netlink.links().await.is_err());
        assert!(!netlink.links().await.unwrap().is_empty());
    }

    #[test]
    fn a_list_is_whole_when_it_ended_and_nothing_changed_meanwhile() {
        let link = || NetlinkMessage::from(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        let done = || NetlinkMessage::new(Default::default(), NetlinkPayload::Done(DoneMessage::default()));
        let marked = |mut message: NetlinkMessage<RouteNetlinkMessage>| {
            message.header.flags |= NLM_F_DUMP_INTR;
            message
        };
        let links = |answers| whole(answers, |_| Some("link"));
        assert_eq!(links(vec![link(), link(), done()]), Ok(Attempt::Whole(vec!["link"; 2])));
        assert_eq!(links(vec![link(), marked(link()), done()]), Ok(Attempt::Changed));
        assert_eq!(links(vec![link(), link(), marked(done())]), Ok(Attempt::Changed));
        assert_eq!(links(vec![link(), link()]), Err(rtnetlink::Error::RequestFailed));
        assert_eq!(links(vec![]), Err(rtnetlink::Error::RequestFailed));

        let broken_off = NetlinkMessage::new(Default::default(), {
            let mut done = DoneMessage::default();
            done.code = -libc::EMSGSIZE;
            NetlinkPayload::Done(done)
        });
        let Err(rtnetlink::Error::NetlinkError(error)) = links(vec![link(), broken_off]) else { panic!("it is whole") };
        assert_eq!(error.raw_code(), -libc::EMSGSIZE);
    }
}
