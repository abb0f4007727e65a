//! A link between a cache and an origin: it counts what passes, and may flip bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use estive_api::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub struct Link {
    pub endpoint: Endpoint,
    state: Arc<State>,
}

struct State {
    /// From the origin to the cache.
    bytes: AtomicU64,
    /// Flips that are still to be made, one in each connection.
    flips: AtomicU64,
}

/// Beyond the handshake, in the middle of a chunk.
const FLIPPED_BYTE: u64 = 100_000;

impl Link {
    pub async fn to(origin: &Endpoint) -> Self {
        let Endpoint::Tls { host, port } = origin.clone() else {
            panic!("{origin} is no place on a network");
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            bytes: AtomicU64::new(0),
            flips: AtomicU64::new(0),
        });
        let link = Self {
            endpoint: endpoint.parse().unwrap(),
            state: state.clone(),
        };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect((host.as_str(), port)).await;
                if let Ok(far) = far {
                    tokio::spawn(pass(near, far, state.clone()));
                }
            }
        });
        link
    }

    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    pub fn flip(&self, times: u64) {
        self.state.flips.store(times, Ordering::SeqCst);
    }
}

async fn pass(near: TcpStream, far: TcpStream, state: Arc<State>) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_near, &mut to_far).await;
    });
    let (mut buffer, mut passed, mut flipped) = (vec![0; 16 << 10], 0, false);
    while let Ok(count @ 1..) = from_far.read(&mut buffer).await {
        passed += count as u64;
        state.bytes.fetch_add(count as u64, Ordering::SeqCst);
        let left = |flips: u64| flips.checked_sub(1);
        if passed > FLIPPED_BYTE
            && !flipped
            && state
                .flips
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left)
                .is_ok()
        {
            buffer[count / 2] ^= 1;
            flipped = true;
        }
        if to_near.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
