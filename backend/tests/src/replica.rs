//! A replica of the API on a port of its own, in this process: real HTTP and sockets, with the app's clock.

use std::time::Duration;

use tbg_core::live::{LiveBus, LiveMessage};
use tbg_realtime::{Realtime, RealtimeConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Wired, realtime_config};
use crate::program::until;
use crate::socket::{Refused, Socket};

/// A running replica.
pub struct Replica {
    /// `http://127.0.0.1:PORT`
    pub base: String,
    /// Its sockets.
    pub realtime: Realtime,
    bus: LiveBus,
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl App {
    /// A replica with sockets as in production.
    pub async fn serve(&self) -> Replica {
        self.serve_with(realtime_config()).await
    }

    /// A replica with sockets as `config` says. Returns when its bridge listens.
    pub async fn serve_with(&self, config: RealtimeConfig) -> Replica {
        let Wired { router, realtime, bus, .. } = self.wire(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        let stop = CancellationToken::new();
        let (serving, running) = (stop.clone(), stop.clone());
        let sockets = realtime.clone();
        let tasks = [
            tokio::spawn(async move {
                tbg_web::serve(listener, router, serving, Duration::from_secs(10)).await.expect("serves");
            }),
            tokio::spawn(async move { sockets.run(running).await }),
        ];
        let replica = Replica { base, realtime, bus, stop, tasks };
        assert!(until(async || replica.realtime.bridge_is_up()).await, "the bridge comes up");
        replica
    }
}

impl Replica {
    /// Opens a socket.
    pub async fn open(&self, token: &str) -> Socket {
        Socket::open(&self.base, token).await.expect("a socket")
    }

    /// Opens a socket that is refused.
    pub async fn refused(&self, token: &str) -> Refused {
        match Socket::open(&self.base, token).await {
            Ok(_) => panic!("the socket was opened"),
            Err(refused) => refused,
        }
    }

    /// Publishes through the replica's own bus.
    pub async fn publish(&self, messages: &[LiveMessage]) {
        self.bus.publish(messages).await;
    }

    /// Stops as SIGTERM does, and waits.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("it ends");
        }
    }

    /// Asks it to stop.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }
}
