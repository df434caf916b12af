//! Lists of what the kernel has: whole, and as it was at one moment.
//!
//! A socket takes one list at a time: the kernel refuses a second with EBUSY. And a list that changed while the kernel
//! wrote it, which it does in pieces, may lack what was there all the time: the kernel marks it, and it is asked again.

use futures::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Netlink, NetlinkError, failed};

/// Also more than links and routes change while pods come and go as fast as a node can start them.
const ATTEMPTS: usize = 20;

impl Netlink {
    /// All answers to `question`, as far as `read` knows them.
    pub(super) async fn list<T: Send + 'static>(
        &self,
        what: &str,
        question: RouteNetlinkMessage,
        read: fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let netlink = self.clone();
        // A task of its own: a list that nobody waits for any more still has to be taken from the socket whole.
        let listing = tokio::spawn(async move {
            let _alone = netlink.listing.lock().await;
            for _ in 0..ATTEMPTS {
                if let Some(list) = netlink.attempt(question.clone(), read).await? {
                    return Ok(Some(list));
                }
            }
            Ok(None)
        });
        let list = listing.await.unwrap_or(Err(rtnetlink::Error::RequestFailed));
        let list = list.map_err(|error| failed(format!("list {what}"), error))?;
        list.ok_or_else(|| NetlinkError::Unsteady { what: what.to_owned() })
    }

    async fn attempt<T>(
        &self,
        question: RouteNetlinkMessage,
        read: fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, rtnetlink::Error> {
        let mut request = NetlinkMessage::from(question);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let answers = self.handle.clone().request(request)?;
        whole(answers.collect().await, read)
    }
}

/// The list that the kernel's messages make; `None` for one that changed meanwhile. Pure.
fn whole<T>(
    answers: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    read: fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Option<Vec<T>>, rtnetlink::Error> {
    let (mut list, mut changed, mut ended) = (Vec::new(), false, false);
    for answer in answers {
        changed |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => list.extend(read(message)),
            NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error)),
            NetlinkPayload::Done(_) => ended = true,
            // The socket's buffer was too small for the rest.
            _ => changed = true,
        }
    }
    match (changed, ended) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(list)),
        // The connection has gone.
        (false, false) => Err(rtnetlink::Error::RequestFailed),
    }
}

#[cfg(test)]
mod tests {
    use futures::future::try_join_all;
    use netlink_packet_route::link::LinkMessage;
    use rtnetlink::packet_core::DoneMessage;

    use super::*;
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
    fn a_list_is_whole_when_it_ended_and_nothing_changed_meanwhile() {
        let link = || NetlinkMessage::from(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        let done = || NetlinkMessage::new(Default::default(), NetlinkPayload::Done(DoneMessage::default()));
        let marked = |mut message: NetlinkMessage<RouteNetlinkMessage>| {
            message.header.flags |= NLM_F_DUMP_INTR;
            message
        };
        let count = |answers| whole(answers, Some).map(|list| list.map(|list| list.len()));
        assert_eq!(count(vec![link(), link(), done()]), Ok(Some(2)));
        assert_eq!(count(vec![link(), marked(link()), done()]), Ok(None));
        assert_eq!(count(vec![link(), link(), marked(done())]), Ok(None));
        assert_eq!(count(vec![link(), link()]), Err(rtnetlink::Error::RequestFailed));
        assert_eq!(count(vec![]), Err(rtnetlink::Error::RequestFailed));
    }
}
