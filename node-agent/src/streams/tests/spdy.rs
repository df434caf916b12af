//! Exec and attach over SPDY/3.1.

use serde_json::{Value, json};

use super::{
    super::spdy::{
        frame::{Frame, ResetStatus},
        test_client::TestClient,
    },
    lab::{Connection, Lab, spdy_request},
};

const V4: &str = "v4.channel.k8s.io";

async fn open(client: &mut TestClient<Connection>, kinds: &[&str]) {
    for (number, kind) in (1u32..).step_by(2).zip(kinds) {
        client.open(number, &[("streamtype", *kind)]).await;
    }
}

#[tokio::test]
async fn a_command_runs_once_its_streams_are_open_and_each_ends_by_itself() {
    let lab = Lab::new().await;
    let mut client = lab.spdy("/exec/default/web/c?command=cat&input=1&output=1", V4).await;
    open(&mut client, &["error", "stdin", "stdout"]).await;
    let text = vec![5; 200_000];
    for part in text.chunks(20_000) {
        client.write(3, part.to_vec()).await;
    }
    client.finish(3).await;
    let mut others = Vec::new();
    assert!(client.read_to_end(5, &mut others).await == text);
    let Some(Frame::Data { bytes: end, .. }) =
        others.iter().find(|frame| matches!(frame, Frame::Data { stream: 1, .. }))
    else {
        panic!("{others:?}")
    };
    assert_eq!(serde_json::from_slice::<Value>(end).unwrap(), json!({"metadata": {}, "status": "Success"}));
    client.read_to_end(1, &mut others).await;
    assert!(matches!(client.next().await, Some(Frame::GoAway { .. })));
    drop(client);
    lab.wait_for_nothing_left().await;
    assert_eq!(lab.runtime.processes.killed(), 0);
}

#[tokio::test]
async fn an_exit_code_is_told_in_each_versions_way() {
    let lab = Lab::new().await;
    for (protocol, wanted) in
        [(V4, "\"ExitCode\""), ("v3.channel.k8s.io", "exit status 3"), ("channel.k8s.io", "status 3")]
    {
        let mut client = lab.spdy("/exec/default/web/c?command=both&output=1&error=1", protocol).await;
        open(&mut client, &["error", "stdout", "stderr"]).await;
        let mut others = Vec::new();
        let end = String::from_utf8(client.read_to_end(1, &mut others).await).unwrap();
        assert!(end.contains(wanted), "{protocol}: {end}");
        let has = |stream, text: &'static str| others.contains(&Frame::Data { stream, fin: false, bytes: text.into() });
        assert!(has(3, "out") && has(5, "err"), "{others:?}");
    }
    lab.wait_for_nothing_left().await;
}

/// It opens no stream for a size, and is not waited for to do so.
#[tokio::test]
async fn a_terminal_is_attached_to_by_a_client_that_knows_nothing_of_it() {
    let lab = Lab::new().await;
    let mut client = lab.spdy("/attach/default/web/terminal?input=1&output=1&error=1", V4).await;
    open(&mut client, &["error", "stdin", "stdout", "stderr"]).await;
    client.write(3, "hello").await;
    assert_eq!(client.next().await, Some(Frame::Data { stream: 5, fin: false, bytes: "hello".into() }));
    drop(client);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_at_any_moment() {
    let lab = Lab::new().await;
    let path = "/exec/default/web/c?command=flood&input=1&output=1&tty=1";
    let kinds = ["error", "stdin", "stdout", "resize"];
    for opened in 0..=kinds.len() {
        let mut client = lab.spdy(path, V4).await;
        open(&mut client, &kinds[..opened]).await;
        if opened == kinds.len() {
            client.next().await.unwrap();
            client.send(Frame::GoAway { last: 0 }).await;
        }
        drop(client);
        lab.wait_for_nothing_left().await;
    }
    assert_eq!(lab.runtime.processes.killed(), 1, "the command ran once, for the client that opened all");
}

#[tokio::test]
async fn thousands_of_streams_are_reset() {
    let lab = Lab::new().await;
    let mut client = lab.spdy("/exec/default/web/c?command=hang&output=1", V4).await;
    open(&mut client, &["error", "stdout"]).await;
    for number in (5u32..4005).step_by(2) {
        client.send_open(number, &[("streamtype", "stdin")]).await;
        loop {
            match client.next().await.unwrap() {
                Frame::RstStream { stream, status: ResetStatus::CANCEL } if stream == number => break,
                Frame::SynReply { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)), "the session goes on");
    drop(client);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn an_unknown_protocol_is_refused_with_those_that_are_known() {
    let lab = Lab::new().await;
    let request = spdy_request("/exec/default/web/c?command=cat&output=1", "v9.channel.k8s.io");
    let answer = lab.ask(request).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers().get_all("x-accepted-stream-protocol-versions").iter().count(), 4);
}
