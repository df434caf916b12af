//! Exec and attach over WebSockets.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::lab::{Connection, Lab, PATIENCE, websocket_request};
use crate::runtime::TerminalSize;

const V5: &str = "v5.channel.k8s.io";

/// What came on each channel until the server closed.
async fn all_of(socket: &mut WebSocketStream<Connection>) -> [Vec<u8>; 4] {
    let mut channels = [const { Vec::new() }; 4];
    let reading = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(message) = message {
                channels[usize::from(message[0])].extend_from_slice(&message[1..]);
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the server closes");
    channels
}

fn status(channel: &[u8]) -> Value {
    serde_json::from_slice(channel).unwrap()
}

async fn send(socket: &mut WebSocketStream<Connection>, message: &[u8]) {
    socket.send(Message::binary(message.to_vec())).await.unwrap();
}

#[tokio::test]
async fn what_is_sent_comes_back_and_the_end_of_input_ends_the_command() {
    let lab = Lab::new().await;
    let mut socket = lab.websocket("/exec/default/web/c?command=cat&input=1&output=1&error=1", V5).await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![1]), "the connection stands");
    let text: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut to, mut from) = socket.split();
    let sent = text.clone();
    let sending = tokio::spawn(async move {
        for part in sent.chunks(100_000) {
            to.send(Message::binary([&[0], part].concat())).await.unwrap();
        }
        to.send(Message::binary(vec![255, 0])).await.unwrap();
        to
    });
    let (mut got, mut end) = (Vec::new(), Vec::new());
    while let Some(Ok(message)) = from.next().await {
        match message.into_data().as_ref() {
            [1, rest @ ..] => got.extend_from_slice(rest),
            [3, rest @ ..] => end = rest.to_vec(),
            _ => {}
        }
    }
    assert!(got == text, "{} bytes came back", got.len());
    assert_eq!(status(&end), json!({"metadata": {}, "status": "Success"}));
    drop((sending.await.unwrap(), from));
    lab.wait_for_nothing_left().await;
    assert_eq!(lab.runtime.processes.killed(), 0);
}

#[tokio::test]
async fn both_outputs_and_the_exit_code_are_told_apart() {
    let lab = Lab::new().await;
    let mut socket = lab.websocket("/exec/default/web/c?command=both&output=1&error=1", V5).await;
    let [_, out, err, end] = all_of(&mut socket).await;
    assert_eq!((&out[..], &err[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!(status(&end)["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
    let mut socket = lab.websocket("/exec/default/web/c?command=both&error=1", "channel.k8s.io").await;
    let [_, out, err, end] = all_of(&mut socket).await;
    assert_eq!((&out[..], &err[..]), (&b""[..], &b"err"[..]), "what was not asked for does not come");
    assert_eq!(end, b"command terminated with non-zero exit code: exit status 3");
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn base64_is_text_both_ways() {
    let lab = Lab::new().await;
    let mut socket =
        lab.websocket("/exec/default/web/c?command=cat&input=1&output=1", "v4.base64.channel.k8s.io").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1"));
    socket.send(Message::text("0!no base64!")).await.unwrap();
    socket.send(Message::text("0aGVsbG8=")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1aGVsbG8="));
    drop(socket);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_terminals_size_follows_the_clients() {
    let lab = Lab::new().await;
    let mut socket = lab.websocket("/exec/default/web/c?command=hang&input=1&output=1&tty=1", V5).await;
    send(&mut socket, b"\x04{\"Width\":80,\"Height\":24}\n").await;
    let resized = async {
        while lab.runtime.processes.sizes() != [TerminalSize { width: 80, height: 24 }] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, resized).await.unwrap();
}

#[tokio::test]
async fn a_command_whose_client_is_gone_is_killed() {
    let lab = Lab::new().await;
    for command in ["hang", "flood", "cat"] {
        let path = format!("/exec/default/web/c?command={command}&input=1&output=1");
        let mut socket = lab.websocket(&path, V5).await;
        socket.next().await.unwrap().unwrap();
        drop(socket);
        lab.wait_for_nothing_left().await;
    }
    assert_eq!(lab.runtime.processes.killed(), 3);
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_the_command_and_is_cut_in_the_end() {
    let lab = Lab::with_idle_limit(Duration::from_millis(200)).await;
    let socket = lab.websocket("/exec/default/web/c?command=flood&output=1", V5).await;
    lab.wait_for_nothing_left().await;
    assert_eq!(lab.runtime.processes.killed(), 1);
    drop(socket);
}

#[tokio::test]
async fn sessions_end_with_the_agent() {
    let lab = Lab::new().await;
    let mut socket = lab.websocket("/exec/default/web/c?command=hang&output=1", V5).await;
    socket.next().await.unwrap().unwrap();
    let (channels, ()) = tokio::join!(all_of(&mut socket), lab.streams.shutdown());
    assert_eq!(status(&channels[3])["message"], "Internal error occurred: the node agent stops");
    assert_eq!((lab.runtime.processes.running(), lab.runtime.processes.killed()), (0, 1));
}

#[tokio::test]
async fn what_cannot_run_is_said_where_the_client_looks_for_it() {
    let lab = Lab::new().await;
    let message = async |path: &str| {
        let mut socket = lab.websocket(path, V5).await;
        status(&all_of(&mut socket).await[3])["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        message("/exec/default/web/c?command=nothing&output=1").await,
        "Internal error occurred: error executing command in container: start a command in the container: exec: \
            \"nothing\": executable file not found in $PATH"
    );
    assert_eq!(
        message("/exec/default/web/other?command=cat&output=1").await,
        "Internal error occurred: unable to upgrade connection: container not found (\"other\")"
    );
    let v4 = "v4.channel.k8s.io";
    let refused = lab.refusal(websocket_request("/exec/default/web/other?command=cat&output=1", v4)).await;
    assert_eq!((refused.0.as_u16(), refused.1.as_str()), (500, "container not found (\"other\")"));
    let refused = lab.refusal(websocket_request("/attach/default/gone/c?output=1", v4)).await;
    assert_eq!((refused.0.as_u16(), refused.1.as_str()), (404, "pod does not exist"));
    let refused = lab.refusal(websocket_request("/attach/default/web/other?output=1", v4)).await;
    assert_eq!(refused.1, "container other not found in pod web_default");
    let refused = lab.refusal(websocket_request("/exec/default/web/c?command=cat", V5)).await;
    assert_eq!((refused.0.as_u16(), refused.1.as_str()), (400, "you must specify at least 1 of stdin, stdout, stderr"));
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn a_main_process_goes_on_without_its_client() {
    let lab = Lab::new().await;
    let mut socket = lab.websocket("/attach/default/web/c?input=1&output=1", V5).await;
    socket.next().await.unwrap().unwrap();
    send(&mut socket, b"\0hello").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(b"\x01hello".to_vec()));
    assert_eq!(lab.runtime.calls("attach"), ["c-1"]);
    drop(socket);
    lab.wait_for_nothing_left().await;
}

#[tokio::test]
async fn hostile_messages_end_the_session_or_are_passed_over() {
    let lab = Lab::new().await;
    let path = "/exec/default/web/c?command=hang&input=1&output=1";
    // Empty, unknown channels, sizes that are none: passed over.
    let mut socket = lab.websocket(path, V5).await;
    for message in [&b""[..], b"\x09x", b"\x01x", b"\x04nonsense", b"\x04"] {
        send(&mut socket, message).await;
    }
    send(&mut socket, b"\xff\x09").await;
    lab.wait_for_nothing_left().await;
    // A frame that claims more than there may be, and one that claims all there is.
    for length in [33u64 << 20, u64::MAX >> 1] {
        let mut connection = lab.switched(websocket_request(path, V5)).await;
        let frame = [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4], &[0; 100]].concat();
        tokio::io::AsyncWriteExt::write_all(&mut connection, &frame).await.unwrap();
        lab.wait_for_nothing_left().await;
    }
    assert_eq!(lab.runtime.processes.killed(), 3);
}
