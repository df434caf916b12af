//! Which resolvers the host uses: `resolv.conf`, read again when it changes, and without what would lead a query back
//! here.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

/// The resolvers as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    /// In the order of the file, each once.
    pub servers: Vec<SocketAddr>,
    /// Why `servers` is empty; `None` where it is not.
    pub problem: Option<ResolverError>,
}

/// Why this node has no resolver for names outside the cluster. Mended in the host's `resolv.conf`, which is read again
/// when it changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolverError {
    /// The file is absent or not readable.
    #[error("{}: {cause}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        cause: String,
    },
    /// No line `nameserver` with an address.
    #[error("{} names no resolver", .0.display())]
    NoneNamed(PathBuf),
    /// Every query would come back here, without end.
    #[error("{} names only this DNS server itself as resolver", .0.display())]
    OnlyItself(PathBuf),
}

/// Follows one file.
#[derive(Debug)]
pub struct ResolvConfFile {
    path: PathBuf,
    own: SocketAddrV4,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    named: Result<Vec<SocketAddr>, ResolverError>,
    /// Resolvers already reported as leading back here: each is reported once.
    reported: BTreeSet<SocketAddr>,
}

impl ResolvConfFile {
    /// `own` is this server's own address, which is never asked.
    pub fn new(path: PathBuf, own: SocketAddrV4) -> Self {
        let state = State { looked: None, modified: None, named: Ok(Vec::new()), reported: BTreeSet::new() };
        Self { path, own, state: Mutex::new(state) }
    }

    /// The resolvers to ask. Looks at the file at most once a second. `is_cluster` says whether an address is one of
    /// the cluster's Services, which may well be answered by this very server.
    pub fn resolvers(&self, now: Instant, is_cluster: impl Fn(Ipv4Addr) -> bool) -> Arc<Resolvers> {
        let mut state = self.state.lock();
        if state.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_AGAIN_AFTER) {
            state.looked = Some(now);
            self.reload_if_changed(&mut state);
        }
        let named = match &state.named {
            Ok(named) => named.clone(),
            Err(problem) => return Arc::new(Resolvers { servers: Vec::new(), problem: Some(problem.clone()) }),
        };
        let leads_back = |server: &SocketAddr| match server {
            SocketAddr::V4(v4) => *v4 == self.own || (v4.port() == DNS_PORT && is_cluster(*v4.ip())),
            SocketAddr::V6(_) => false,
        };
        let (back, servers): (Vec<_>, Vec<_>) = named.into_iter().partition(leads_back);
        for server in &back {
            if state.reported.insert(*server) {
                tracing::warn!(%server, file = %self.path.display(), "not asking a resolver that is this DNS server itself");
            }
        }
        let problem = servers.is_empty().then(|| match back.is_empty() {
            true => ResolverError::NoneNamed(self.path.clone()),
            false => ResolverError::OnlyItself(self.path.clone()),
        });
        Arc::new(Resolvers { servers, problem })
    }

    fn reload_if_changed(&self, state: &mut State) {
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_some() && modified == state.modified {
            return;
        }
        state.modified = modified;
        let read = std::fs::read_to_string(&self.path);
        let unreadable =
            |error: std::io::Error| ResolverError::Read { path: self.path.clone(), cause: error.to_string() };
        state.named = read.map(|text| nameservers(&text)).map_err(unreadable);
        state.reported.clear();
        tracing::info!(file = %self.path.display(), resolvers = ?state.named, "resolvers for names outside the cluster");
    }
}

/// The `nameserver` lines; with a port as `[ADDRESS]:PORT` (OpenBSD's form), with a scope as `fe80::1%2`. Other lines
/// are not for servers.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    let mut servers = Vec::new();
    for server in named.filter_map(nameserver) {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

fn nameserver(word: &str) -> Option<SocketAddr> {
    if let Some((address, port)) = word.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?));
    }
    let (address, scope) = word.split_once('%').unwrap_or((word, ""));
    match address.parse().ok()? {
        IpAddr::V4(v4) => Some(SocketAddrV4::new(v4, DNS_PORT).into()),
        IpAddr::V6(v6) => {
            let scope = scope.parse().or_else(|_| nix::net::if_::if_nametoindex(scope)).unwrap_or(0);
            Some(SocketAddrV6::new(v6, DNS_PORT, 0, scope).into())
        }
    }
}

const DNS_PORT: u16 = 53;
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_in_order_and_once() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 1.1.1.1\noptions ndots:5\nnameserver [127.0.0.1]:5353\nnameserver fe80::1%7\nnameserver 1.1.1.1\nnameserver\nnameserver x";
        let servers: Vec<String> = nameservers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["1.1.1.1:53", "127.0.0.1:5353", "[fe80::1%7]:53"]);
    }

    #[test]
    fn a_change_is_seen_and_a_resolver_that_leads_back_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let conf = ResolvConfFile::new(path.clone(), SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 1), 53));
        let cluster = |address: Ipv4Addr| address == Ipv4Addr::new(10, 96, 0, 10);
        let start = Instant::now();
        assert!(conf.resolvers(start, cluster).problem.as_ref().unwrap().to_string().contains("No such file"));

        std::fs::write(&path, "nameserver 10.244.1.1\nnameserver 10.96.0.10\n").unwrap();
        let later = start + Duration::from_secs(2);
        assert!(
            conf.resolvers(later, cluster)
                .problem
                .as_ref()
                .unwrap()
                .to_string()
                .contains("only this DNS server itself")
        );

        std::fs::write(&path, "nameserver 10.244.1.1\nnameserver 9.9.9.9\n").unwrap();
        let touched = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(touched).unwrap();
        let resolvers = conf.resolvers(later + Duration::from_secs(2), cluster);
        assert_eq!(resolvers.servers, ["9.9.9.9:53".parse().unwrap()]);
        assert_eq!(resolvers.problem, None);
    }
}
