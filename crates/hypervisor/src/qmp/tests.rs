//! The client against a monitor made by hand.

use super::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

const BOUND: Duration = Duration::from_secs(20);

/// A monitor that answers by `answer(command) -> lines`.
async fn monitor(
    listener: UnixListener,
    answer: impl Fn(&str, &Value) -> Vec<Value> + Send + 'static,
) {
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    let greeting = json!({"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":1}}}});
    write
        .write_all(format!("{greeting}\r\n").as_bytes())
        .await
        .unwrap();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line: Value = serde_json::from_str(&line).unwrap();
        for reply in answer(line["execute"].as_str().unwrap(), &line) {
            if reply == json!("hang up") {
                return;
            }
            write
                .write_all(format!("{reply}\r\n").as_bytes())
                .await
                .unwrap();
        }
    }
}

async fn connected(
    answer: impl Fn(&str, &Value) -> Vec<Value> + Send + 'static,
) -> (Qmp, mpsc::Receiver<QmpEvent>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(monitor(listener, move |command, line| match command {
        "qmp_capabilities" => vec![json!({"return":{}, "id":line["id"]})],
        _ => answer(command, line),
    }));
    let (qmp, events) = Qmp::connect(&path, BOUND).await.unwrap();
    (qmp, events, directory)
}

#[tokio::test]
async fn answers_find_their_commands_whatever_their_order() {
    // The first command is answered only after the second, and the second gets an error.
    let first = Mutex::new(Value::Null);
    let (qmp, _events, _directory) = connected(move |command, line| {
        if command == "first" {
            *first.lock().unwrap() = line["id"].clone();
            return vec![];
        }
        vec![
            json!({"error":{"class":"GenericError","desc":"no"},"id":line["id"]}),
            json!({"return":{"x":1},"id":*first.lock().unwrap()}),
        ]
    })
    .await;
    assert_eq!(qmp.version(), (7, 2, 1));
    let second = async {
        tokio::task::yield_now().await;
        qmp.execute("second", json!({}), BOUND).await
    };
    let (first, second) = tokio::join!(qmp.execute("first", Value::Null, BOUND), second);
    assert_eq!(first.unwrap(), json!({"x":1}));
    assert!(
        matches!(second, Err(QmpError::Refused { class, description, .. })
        if class == "GenericError" && description == "no")
    );
}

#[tokio::test]
async fn silence_has_a_bound_and_leaves_nothing_waiting() {
    let (qmp, _events, _directory) = connected(|_, _| vec![]).await;
    let answer = qmp
        .execute("query-status", Value::Null, Duration::from_millis(20))
        .await;
    assert!(
        matches!(answer, Err(QmpError::Silent { waited_ms: 20, .. })),
        "{answer:?}"
    );
    assert!(held(&qmp.pending).waiting.is_empty());
}

#[tokio::test]
async fn the_end_of_qemu_ends_every_command_and_the_events() {
    let (qmp, mut events, _directory) = connected(|command, _| match command {
        "quit" => vec![
            json!({"event":"SHUTDOWN","data":{"guest":false},
                   "timestamp":{"seconds":2,"microseconds":5}}),
            json!("hang up"),
        ],
        _ => vec![],
    })
    .await;
    let (waiting, quit) = tokio::join!(
        qmp.execute("never-answered", Value::Null, BOUND),
        qmp.execute("quit", Value::Null, BOUND),
    );
    assert!(
        matches!(waiting, Err(QmpError::Closed { .. })),
        "{waiting:?}"
    );
    assert!(matches!(quit, Err(QmpError::Closed { .. })), "{quit:?}");
    let event = events.recv().await.unwrap();
    assert_eq!(
        (event.name.as_str(), event.time_us),
        ("SHUTDOWN", 2_000_005)
    );
    assert_eq!(events.recv().await, None);
    assert!(qmp.is_closed());
    let after = qmp.execute("query-status", Value::Null, BOUND).await;
    assert!(matches!(after, Err(QmpError::Closed { .. })), "{after:?}");
}

#[tokio::test]
async fn an_open_file_travels_with_its_command() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let greeting = b"{\"QMP\":{}}\n";
        stream.writable().await.unwrap();
        stream.try_write(greeting).unwrap();
        let mut seen = Vec::new();
        let mut files = Vec::new();
        while !seen.ends_with(b"\"id\":2}\n") {
            stream.readable().await.unwrap();
            let mut bytes = [0; 512];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
            let received = stream.try_io(Interest::READABLE, || {
                Ok(rustix::net::recvmsg(
                    &stream,
                    &mut [io::IoSliceMut::new(&mut bytes)],
                    &mut control,
                    rustix::net::RecvFlags::empty(),
                )?)
            });
            let Ok(received) = received else { continue };
            seen.extend(&bytes[..received.bytes]);
            for message in control.drain() {
                if let rustix::net::RecvAncillaryMessage::ScmRights(fds) = message {
                    files.extend(fds);
                }
            }
            let id = if files.is_empty() { 1 } else { 2 };
            if seen.ends_with(b"\n") {
                stream
                    .try_write(format!("{{\"return\":{{}},\"id\":{id}}}\n").as_bytes())
                    .unwrap();
            }
        }
        files.len()
    });
    let (qmp, _events) = Qmp::connect(&path, BOUND).await.unwrap();
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    qmp.execute_with_fd("getfd", json!({"fdname":"x"}), file, BOUND)
        .await
        .unwrap();
    assert_eq!(server.await.unwrap(), 1);
}
