//! A wire between the program and a server, which can swallow what goes over it: no reset, no answer.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

/// Ends with the test.
pub struct Wire {
    /// Where the program connects.
    pub address: SocketAddr,
    flows: watch::Sender<bool>,
}

impl Wire {
    /// A wire to the socket `target` over which everything flows.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (flows, seen) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, seen) = (target.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(server) = UnixStream::connect(target).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        () = carry(from_client, to_server, seen.clone()) => {}
                        () = carry(from_server, to_client, seen) => {}
                    }
                });
            }
        });
        Self { address, flows }
    }

    /// Lets bytes pass, or holds them back.
    pub fn flow(&self, flows: bool) {
        self.flows.send_replace(flows);
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut flows: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if flows.wait_for(|flows| *flows).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
