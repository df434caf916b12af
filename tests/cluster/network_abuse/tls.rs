//! Handshakes byte by byte: versions of TLS that are broken, downgrades, and renegotiation.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use super::victim::Victim;
use crate::{
    control_alone::expect,
    kit::{Result, cluster::PATIENCE, run},
    streams::kubectl::Killed,
};

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const FATAL: u8 = 2;
/// RFC 8446, section 6.2.
const PROTOCOL_VERSION: u8 = 70;
const HANDSHAKE_FAILURE: u8 = 40;

/// Appends `bytes` behind their length in `width` bytes.
fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

/// A ClientHello (RFC 5246, section 7.4.1.2) in a record.
pub fn client_hello(version: [u8; 2], suites: &[u8]) -> Vec<u8> {
    let extensions = [
        // The server's name is left out: it is an address. supported_groups: x25519, secp256r1.
        [vec![0, 10], counted(2, &counted(2, &[0, 29, 0, 23]))].concat(),
        // ec_point_formats: uncompressed.
        [vec![0, 11], counted(2, &counted(1, &[0]))].concat(),
        // signature_algorithms: ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, rsa_pkcs1_sha256.
        [vec![0, 13], counted(2, &counted(2, &[4, 3, 8, 4, 4, 1]))].concat(),
    ];
    let body = [
        version.to_vec(),
        vec![7; 32],
        counted(1, &[]),
        counted(2, suites),
        counted(1, &[0]),
        counted(2, &extensions.concat()),
    ];
    let message = [vec![1], counted(3, &body.concat())].concat();
    [vec![HANDSHAKE, 3, 1], counted(2, &message)].concat()
}

/// The first record that the server answers with: its type and content; `None` where it just closes.
fn first_record(victim: &Victim, hello: &[u8]) -> Result<Option<(u8, Vec<u8>)>> {
    let mut stream = TcpStream::connect(("127.0.0.1", victim.control.port()?))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(hello)?;
    let mut header = [0; 5];
    if stream.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut content)?;
    Ok(Some((header[0], content)))
}

/// SSL 3.0, TLS 1.0 and 1.1 with suites of their time, and TLS 1.2 with those of no forward secrecy.
pub async fn old_versions(victim: Victim) -> Result {
    let of_their_time = [0xc0, 0x0a, 0xc0, 0x14, 0xc0, 0x13, 0, 0x2f, 0, 0x35, 0, 0x0a, 0, 0x05];
    for version in [[3, 0], [3, 1], [3, 2]] {
        match first_record(&victim, &client_hello(version, &of_their_time))? {
            Some((ALERT, alert)) if alert == [FATAL, PROTOCOL_VERSION] => {}
            other => return Err(format!("version {version:?}: {other:?}").into()),
        }
    }
    match first_record(&victim, &client_hello([3, 3], &of_their_time))? {
        Some((ALERT, alert)) if alert == [FATAL, HANDSHAKE_FAILURE] => {}
        other => return Err(format!("suites without forward secrecy: {other:?}").into()),
    }
    expect(&victim.admin, 200, "GET", "/readyz", None).await.map(drop)
}

/// A client that speaks TLS 1.3 sees that somebody on the way took it out of its hello (RFC 8446, section 4.1.3).
pub async fn downgrade(victim: Victim) -> Result {
    let hello = client_hello([3, 3], &[0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30]);
    let Some((HANDSHAKE, message)) = first_record(&victim, &hello)? else {
        return Err("TLS 1.2 is not spoken".into());
    };
    // Behind the message's type and length, and the version.
    match message.get(6..38).map(|random| random.ends_with(b"DOWNGRD\x01")) {
        Some(true) => Ok(()),
        _ => Err(format!("the random of the server does not tell: {message:?}").into()),
    }
}

/// `R` has openssl ask for another handshake on the connection. There is none until the connection ends; the word that
/// refuses it may come with the next bytes alone, so that nobody waits for it.
pub async fn renegotiation(mut victim: Victim) -> Result {
    run(Command::new("openssl").arg("version"))?;
    let address = format!("127.0.0.1:{}", victim.control.port()?);
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address, "-tls1_2"]);
    client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut client = Killed(client.spawn()?);
    let mut stdin = client.0.stdin.take().ok_or("no standard input")?;
    let mut said = BufReader::new(client.0.stderr.take().ok_or("no standard error")?);
    stdin.write_all(b"R\n")?;
    stdin.flush()?;
    let mut line = String::new();
    while line.trim() != "RENEGOTIATING" {
        line.clear();
        if said.read_line(&mut line)? == 0 {
            return Err("openssl ended before it asked for renegotiation".into());
        }
    }
    expect(&victim.admin, 200, "GET", "/readyz", None).await?;
    victim.control.process.terminate(PATIENCE)?;
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    // What openssl says of each certificate of a handshake.
    if rest.contains("depth=") {
        return Err(format!("there was another handshake: {rest}").into());
    }
    Ok(())
}
