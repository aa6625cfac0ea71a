//! `tbg healthcheck`: what a container asks. One request, no HTTP client needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tbg_core::config::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cli::Healthcheck;
use crate::terminal::say;

const TIMEOUT: Duration = Duration::from_secs(5);

pub async fn run(args: &Healthcheck, settings: &Settings) -> anyhow::Result<ExitCode> {
    let was_ready = args.once_ready.as_deref().is_some_and(Path::exists);
    let status = tokio::time::timeout(TIMEOUT, ask(reachable(settings.http_listen))).await;
    Ok(match status {
        Ok(Ok(status)) if args.alive || was_ready || status == "200" => {
            let _ = say!("{status}");
            if let Some(path) = args.once_ready.as_deref().filter(|_| !was_ready) {
                std::fs::write(path, []).context("the file of --once-ready")?;
            }
            ExitCode::SUCCESS
        }
        Ok(Ok(status)) => {
            let _ = say!("{status}");
            ExitCode::FAILURE
        }
        Ok(Err(error)) => {
            let _ = say!("no answer: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            let _ = say!("no answer within {} s", TIMEOUT.as_secs());
            ExitCode::FAILURE
        }
    })
}

/// A server that listens everywhere is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status of `GET /health`.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let head = String::from_utf8_lossy(&head);
    Ok(head.split(' ').nth(1).unwrap_or("?").to_owned())
}
