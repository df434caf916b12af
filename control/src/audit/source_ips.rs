//! Where a request comes from: the proxies' headers, then the address of the connection, which alone can be trusted.
//!
//! Source: `SourceIPs` of `k8s.io/apimachinery/pkg/util/net`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";
const REAL_IP: &str = "x-real-ip";

/// How many addresses of the headers are told, the nearest. Kubernetes tells them all, and so its senders can make an
/// event as large as they like.
const MOST: usize = 32;

/// The addresses, the nearest last. `peer` is unknown of a request that came over no connection.
pub fn source_ips(headers: &HeaderMap, peer: Option<SocketAddr>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let nearest_first = text(FORWARDED_FOR).rsplit(',').filter_map(|part| part.trim().parse().ok());
    let mut all: Vec<IpAddr> = nearest_first.take(MOST).collect();
    all.reverse();
    let real = text(REAL_IP).parse().ok().filter(|ip| !all.contains(ip));
    all.extend(real);
    let peer = peer.map(|peer| peer.ip().to_canonical()).filter(|ip| all.last() != Some(ip));
    all.extend(peer);
    all
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_come_before_the_connection_and_nothing_twice() {
        let of = |forwarded: &'static str, real: &'static str, peer: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, HeaderValue::from_static(forwarded));
            headers.insert(REAL_IP, HeaderValue::from_static(real));
            let ips = source_ips(&headers, peer.parse().ok());
            ips.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("", "", "10.0.0.1:5"), ["10.0.0.1"]);
        assert_eq!(of("1.1.1.1, 2.2.2.2", "", "10.0.0.1:5"), ["1.1.1.1", "2.2.2.2", "10.0.0.1"]);
        assert_eq!(of("1.1.1.1,x", "3.3.3.3", "3.3.3.3:5"), ["1.1.1.1", "3.3.3.3"]);
        assert_eq!(of("1.1.1.1", "1.1.1.1", "[::ffff:10.0.0.1]:5"), ["1.1.1.1", "10.0.0.1"]);
        assert!(of("", "", "none").is_empty());
    }

    #[test]
    fn of_many_addresses_the_nearest_are_told_and_always_the_connection() {
        let mut headers = HeaderMap::new();
        let many = format!("{}1.1.1.1,2.2.2.2", "::,".repeat(21_600));
        headers.insert(FORWARDED_FOR, HeaderValue::from_str(&many).unwrap());
        headers.insert(REAL_IP, HeaderValue::from_static("3.3.3.3"));
        let ips = source_ips(&headers, "10.0.0.1:5".parse().ok());
        let nearest = ["1.1.1.1", "2.2.2.2", "3.3.3.3", "10.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!((ips.len(), &ips[MOST - 2..]), (MOST + 2, &nearest[..]));
    }
}
