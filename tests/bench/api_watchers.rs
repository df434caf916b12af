//! Watchers over TLS, each with a connection of its own, and how fast events reach all of them.

use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, StreamExt, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::{api_load, api_writes, kit::Result, report::percentile};

/// What watchers saw.
pub struct Deliveries {
    pub per_second: f64,
    pub p99_ms: f64,
    /// Processor time of the server for each.
    pub processor_micros: f64,
}

const NAMESPACE: &str = "watched";
const MAPS: &str = "/api/v1/namespaces/watched/configmaps";
/// Where an object says when it was sent, in microseconds since the start.
const SENT: &[u8] = b"\"sent\":\"";
const WRITERS: usize = 4;
/// TLS connections that are made at once.
const AT_ONCE: usize = 32;
/// When a watcher that was told nothing gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Creates `events` objects while `watchers` watch, and waits until all have seen all. `processor_seconds` is what
/// the server has taken up to now.
pub async fn deliveries(
    config: &kube::Config,
    watchers: usize,
    events: usize,
    processor_seconds: impl Fn() -> Result<f64>,
) -> Result<Deliveries> {
    let clients = api_load::clients(config, WRITERS)?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api_writes::write(&clients[0], "POST", "/api/v1/namespaces", "application/json", &namespace).await?;
    let list = http::Request::get(format!("{MAPS}?limit=1")).body(Vec::new())?;
    let list: Value = clients[0].request(list).await?;
    let version = list["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?.to_owned();
    let path = format!("{MAPS}?watch=1&resourceVersion={version}");
    let opening = (0..watchers).map(|_| async {
        let client = Client::try_from(config.clone())?;
        let lines = client.request_stream(http::Request::get(&path).body(Vec::new())?).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((client, Box::pin(lines)))
    });
    let opened: Vec<_> = stream::iter(opening).buffer_unordered(AT_ONCE).collect().await;
    let start = Instant::now();
    let mut reading = tokio::task::JoinSet::new();
    for watcher in opened {
        let (client, mut lines) = watcher?;
        reading.spawn(async move {
            let mut delays = Vec::with_capacity(events);
            let mut line = Vec::new();
            while delays.len() < events {
                line.clear();
                if lines.read_until(b'\n', &mut line).await? == 0 {
                    return Err(format!("a watch ended after {} of {events} events", delays.len()).into());
                }
                if let Some(sent) = sent(&line) {
                    delays.push((start.elapsed().as_micros() as f64 - sent) / 1e3);
                }
            }
            drop(client);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(delays)
        });
    }
    let writing = api_load::each(&clients, events, |client, index| async move {
        let sent = start.elapsed().as_micros().to_string();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("event-{index:06}")},
            "data": {"sent": sent, "text": "x".repeat(200)}});
        api_writes::write(&client, "POST", MAPS, "application/json", &map).await.map(drop)
    });
    let (began, processor) = (start.elapsed(), processor_seconds()?);
    writing.await?;
    let mut delays = Vec::with_capacity(watchers * events);
    let all = async {
        while let Some(seen) = reading.join_next().await {
            delays.extend(seen??);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    tokio::time::timeout(PATIENCE, all).await.map_err(|_| "watchers do not see all events")??;
    let seconds = (start.elapsed() - began).as_secs_f64();
    let count = delays.len() as f64;
    let processor_micros = (processor_seconds()? - processor) / count * 1e6;
    Ok(Deliveries { per_second: count / seconds, p99_ms: percentile(&mut delays, 0.99), processor_micros })
}

/// When the object of a frame was sent, in microseconds since the start.
fn sent(line: &[u8]) -> Option<f64> {
    let at = memchr::memmem::find(line, SENT)?;
    let rest = line.get(at + SENT.len()..)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}
