//! One download: a task that reads ahead by one piece and waits for its reader no longer than [`STALL`].
//!
//! A task, because a body that nobody asks for its next piece cannot end itself: a reader that stands still would keep
//! its place for ever.

use std::io::{self, SeekFrom};

use axum::body::{Body, Bytes};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{LONGEST, STALL};
use crate::metrics::ARTIFACT_DOWNLOADS;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

type Piece = io::Result<Bytes>;

/// What is to be sent.
pub(super) struct Download {
    pub(super) file: File,
    pub(super) first: u64,
    pub(super) length: u64,
    pub(super) permit: OwnedSemaphorePermit,
}

/// How it ended.
enum Ended {
    Complete,
    /// The reader went away, stood still or took too long.
    Reader,
    /// The file could not be read, or became shorter.
    File,
}

impl Download {
    /// Its body. One that ends too early ends the connection: its length was promised.
    pub(super) fn start(self) -> Body {
        let (sender, mut receiver) = mpsc::channel(1);
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with its reader, and by itself; the semaphore counts it"
        )]
        tokio::spawn(self.run(sender));
        Body::from_stream(futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)))
    }

    async fn run(self, sender: mpsc::Sender<Piece>) {
        let Self { mut file, first, length, permit } = self;
        let send = send(&mut file, first, length, &sender);
        let outcome = match tokio::time::timeout(LONGEST, send).await {
            Ok(Ended::Complete) => "complete",
            Ok(Ended::File) => "unreadable",
            Ok(Ended::Reader) | Err(_) => "broken_off",
        };
        metrics::counter!(ARTIFACT_DOWNLOADS, "outcome" => outcome).increment(1);
        drop(permit);
    }
}

async fn send(file: &mut File, first: u64, length: u64, sender: &mpsc::Sender<Piece>) -> Ended {
    if let Err(error) = file.seek(SeekFrom::Start(first)).await {
        return failed(sender, error).await;
    }
    let mut left = length;
    while left > 0 {
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        let read = match file.read(&mut piece).await {
            Ok(0) => {
                let error = io::Error::other("an artifact became shorter while it was sent");
                return failed(sender, error).await;
            }
            Ok(read) => read,
            Err(error) => return failed(sender, error).await,
        };
        piece.truncate(read);
        left -= read as u64;
        match tokio::time::timeout(STALL, sender.send(Ok(piece.into()))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ended::Reader,
        }
    }
    Ended::Complete
}

async fn failed(sender: &mpsc::Sender<Piece>, error: io::Error) -> Ended {
    tracing::error!(%error, "an artifact cannot be read");
    // A reader that is gone needs no error.
    drop(tokio::time::timeout(STALL, sender.send(Err(error))).await);
    Ended::File
}
