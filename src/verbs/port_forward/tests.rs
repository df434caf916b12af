//! Which ports are meant, how the protocol is chosen, and when a pod is gone.

mod agent;
mod api;
mod sessions;

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use self::{
    agent::{COUNT, REFUSED, local_port},
    api::{SILENT, api, api_with_silent_port},
};
use super::*;
use crate::cluster::fake::{Answer, FakeServer};

fn pod() -> PodTarget {
    let pod = json!({"metadata": {"name": "web-1"}, "spec": {"containers": [{"name": "c",
        "ports": [{"name": "http", "containerPort": 8080}]}]}});
    PodTarget { pod, path: String::new(), container: "c".into() }
}

#[test]
fn what_a_node_says_of_a_failure_does_not_reach_the_terminal() {
    let told = failed(8080, 80, &anyhow::anyhow!("refused\u{1b}[2J"));
    assert_eq!(told, "an error occurred forwarding 8080 -> 80: refused^[[2J");
}

#[test]
fn ports_are_numbers_or_names_of_the_pod_or_its_service() {
    let of = |word| forward(word, &pod(), None).map(|found| (found.local, found.remote)).map_err(|e| e.to_string());
    assert_eq!(of("80"), Ok((80, 80)));
    assert_eq!(of("8000:80"), Ok((8000, 80)));
    assert_eq!(of(":80"), Ok((0, 80)));
    assert_eq!(of("9000:http"), Ok((9000, 8080)));
    assert_eq!(of("http"), Ok((8080, 8080)));
    assert_eq!(of(":no").unwrap_err(), "Pod 'web-1' does not have a named port 'no'");
    for wrong in ["0", "70000", "x:80", ""] {
        of(wrong).unwrap_err();
    }
    let service = json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.9",
        "ports": [
        {"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 81, "targetPort": 9000},
        {"name": "same", "port": 82}]}});
    let of = |word| forward(word, &pod(), Some(&service)).map(|found| (found.local, found.remote));
    assert_eq!(of("80").unwrap(), (80, 8080));
    assert_eq!(of("1:web").unwrap(), (1, 8080));
    assert_eq!(of(":81").unwrap(), (0, 9000));
    assert_eq!(of("82").unwrap(), (82, 82));
    assert_eq!(of("83").unwrap_err().to_string(), "Service web does not have a service port 83");
}

#[tokio::test]
async fn a_pod_is_gone_when_it_is_missing_another_or_has_ended() {
    let known = json!({"metadata": {"name": "web-1", "uid": "1"}, "status": {"phase": "Running"}});
    let target = PodTarget { pod: known.clone(), path: "/api/v1/namespaces/default/pods/web-1".into(), ..pod() };
    let with = |pointer, value| {
        let mut pod = known.clone();
        *pod.pointer_mut(pointer).unwrap() = value;
        Answer::json(&pod)
    };
    for (answer, wanted) in [
        (Answer::json(&known), false),
        (with("/metadata/uid", json!("2")), true),
        (with("/status/phase", json!("Succeeded")), true),
        (Answer::refusal(404, "NotFound", "pods \"web-1\" not found"), true),
        (Answer::refusal(403, "Forbidden", "no"), false),
        (Answer::Unreachable, false),
    ] {
        assert_eq!(is_gone(&FakeServer::new([answer]).cluster("default"), &target).await, wanted);
    }
}

fn forwards() -> [Forward; 1] {
    [Forward { local: 0, remote: COUNT }]
}

#[tokio::test]
async fn a_server_that_knows_sessions_gets_one() {
    let cluster = api(&[tunnel::PORT_FORWARD, channels::PROTOCOL]).await;
    let socket = dial(&cluster, &pod(), &forwards()).await.unwrap().expect("a session");
    let (port, address) = local_port(COUNT).await;
    let answered = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"four").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::select! {
        ended = session::run(socket, vec![port], async || false) => panic!("{ended:?}"),
        answer = answered => assert_eq!(answer, "4"),
    }
}

#[tokio::test]
async fn an_older_server_gets_a_websocket_for_each_connection() {
    let (cluster, pod) = (api(&[channels::PROTOCOL]).await, pod());
    assert!(dial(&cluster, &pod, &forwards()).await.unwrap().is_none());
    let (port, address) = local_port(COUNT).await;
    tokio::select! {
        ended = channels::run(&cluster, &pod, vec![port], async || false) => panic!("{ended:?}"),
        answer = echoed(address) => assert_eq!(answer, "four"),
    }
}

async fn echoed(by: SocketAddr) -> String {
    let mut client = TcpStream::connect(by).await.unwrap();
    client.write_all(b"four").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_port_to_which_a_websocket_takes_long_to_open_holds_up_no_other() {
    let (tell_asked, mut asked) = mpsc::unbounded_channel();
    let (cluster, pod) = (api_with_silent_port(&[channels::PROTOCOL], tell_asked).await, pod());
    let ((silent, to_silent), (port, address)) = (local_port(SILENT).await, local_port(COUNT).await);
    let answered = async {
        let _waits = TcpStream::connect(to_silent).await.unwrap();
        asked.recv().await.unwrap();
        echoed(address).await
    };
    tokio::select! {
        ended = channels::run(&cluster, &pod, vec![silent, port], async || false) => panic!("{ended:?}"),
        answer = tokio::time::timeout(Duration::from_secs(30), answered) => assert_eq!(answer.unwrap(), "four"),
    }
}

#[tokio::test]
async fn a_websocket_that_cannot_be_opened_is_told_and_others_go_on_unless_the_pod_is_gone() {
    let (cluster, pod) = (api(&[channels::PROTOCOL]).await, pod());
    let ((refused, to_refused), (good, to_good)) = (local_port(REFUSED).await, local_port(COUNT).await);
    let (tell_checked, mut checked) = mpsc::channel(1);
    let gone = std::cell::Cell::new(false);
    let is_gone = async || {
        tell_checked.send(()).await.unwrap();
        gone.get()
    };
    let refuse = async || {
        let mut client = TcpStream::connect(to_refused).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "it is closed");
    };
    let using = async {
        refuse().await;
        checked.recv().await.unwrap();
        assert_eq!(echoed(to_good).await, "four");
        gone.set(true);
        refuse().await;
        std::future::pending::<()>().await
    };
    let ended = async {
        tokio::select! {
            ended = channels::run(&cluster, &pod, vec![refused, good], is_gone) => ended.unwrap_err(),
            () = using => unreachable!(),
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends");
    assert_eq!(ended.to_string(), "lost connection to pod");
}

#[tokio::test]
async fn a_server_that_refuses_is_an_error_before_anybody_may_connect() {
    let error = dial(&api(&[]).await, &pod(), &forwards()).await.expect_err("a refusal");
    assert_eq!(error.downcast_ref::<ApiError>().unwrap().code, 403);
}
