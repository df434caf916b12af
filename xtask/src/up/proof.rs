//! The proof: real requests through the ClusterIP, the NodePort and the DNS name, counted by the pod that answered.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, ensure};

use super::{cluster::Cluster, http};
use crate::progress::Step;

const REQUESTS: usize = 60;

/// Which pods answered, and how often.
type Spread = BTreeMap<String, usize>;

/// Sends the requests and returns the report. Fails at the first request without an answer.
pub fn prove(cluster: &Cluster) -> anyhow::Result<String> {
    let step = Step::start("proving it by requests");
    let address = |text: String| -> anyhow::Result<IpAddr> {
        text.trim().parse().with_context(|| format!("{text} is no address"))
    };
    let hello = SocketAddr::new(address(cluster.value("service/hello", "{.spec.clusterIP}")?)?, 80);
    let node = address(cluster.value("nodes", "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}")?)?;
    let web = SocketAddr::new(node, cluster.node_port()?);

    let mut text = String::new();
    let by_cluster_ip = spread(|| http::get(hello, "/"))?;
    report(&mut text, &format!("ClusterIP   http://{hello}"), &by_cluster_ip)?;
    let answers = (0..REQUESTS).map(|_| ask_by_name(web)).collect::<anyhow::Result<Vec<_>>>()?;
    let by_node_port = count(answers.iter().map(|answer| answer.split(' ').next().unwrap_or_default().to_owned()));
    report(&mut text, &format!("NodePort    http://{web}/cgi-bin/ask"), &by_node_port)?;
    let by_name = count(answers.iter().map(|answer| answer.rsplit(' ').next().unwrap_or_default().to_owned()));
    report(&mut text, "DNS name    http://hello, asked by each pod of web in turn", &by_name)?;
    for (spread, prefix) in [(&by_cluster_ip, "hello-"), (&by_node_port, "web-"), (&by_name, "hello-")] {
        let strangers: Vec<&String> = spread.keys().filter(|name| !name.starts_with(prefix)).collect();
        ensure!(strangers.is_empty(), "answers came from {strangers:?} and not from the pods of {prefix}…:\n{text}");
    }
    step.done(&format!("{} requests, all answered", 3 * REQUESTS));
    Ok(text)
}

/// What a pod of `web` says: its own name first, and last the name of the pod of `hello` that it reached by DNS.
fn ask_by_name(web: SocketAddr) -> anyhow::Result<String> {
    let answer = http::get(web, "/cgi-bin/ask")?;
    ensure!(!answer.ends_with("heard"), "a pod of web did not reach http://hello: {answer}");
    Ok(answer)
}

fn spread(ask: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<Spread> {
    Ok(count((0..REQUESTS).map(|_| ask()).collect::<anyhow::Result<Vec<_>>>()?))
}

fn count(answers: impl IntoIterator<Item = String>) -> Spread {
    let mut spread = Spread::new();
    for answer in answers {
        *spread.entry(answer).or_default() += 1;
    }
    spread
}

fn report(text: &mut String, title: &str, spread: &Spread) -> anyhow::Result<()> {
    writeln!(text, "{title}: {} answers from {} pods", spread.values().sum::<usize>(), spread.len())?;
    let width = spread.keys().map(String::len).max().unwrap_or_default();
    for (pod, answers) in spread {
        writeln!(text, "  {pod:width$}  {answers:3}  {}", "█".repeat(*answers))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_pod() {
        let spread = count(["a-1", "a-2", "a-1"].map(str::to_owned));
        let mut text = String::new();
        report(&mut text, "x", &spread).expect("a string takes all");
        assert_eq!(text, "x: 3 answers from 2 pods\n  a-1    2  ██\n  a-2    1  █\n");
    }
}
