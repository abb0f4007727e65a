//! The root server with the real qemu-nbd, read by qemu-img and qemu-io on loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use estive_exports::ExportError;
use estive_exports::nbd::{RootServer, RootServerConfig, serve};

const IMAGE_BYTES: usize = 1 << 20;

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

fn config(dir: &Path) -> RootServerConfig {
    let image = dir.join("a,b.erofs");
    fs::write(&image, vec![0x5a; IMAGE_BYTES]).unwrap();
    RootServerConfig {
        image,
        listen: free_address(),
        export: "root".to_owned(),
        credentials: None,
    }
}

async fn run(program: &'static str, args: Vec<String>) -> Output {
    tokio::task::spawn_blocking(move || Command::new(program).args(args).output().unwrap())
        .await
        .unwrap()
}

fn url(config: &RootServerConfig) -> String {
    format!("nbd://{}/{}", config.listen, config.export)
}

/// Whether the export's first bytes can be read as what the image holds.
async fn reads(config: &RootServerConfig) -> bool {
    let args = ["-r", "-f", "raw", "-c", "read -P 0x5a 0 4096", &url(config)];
    let output = run("qemu-io", args.map(str::to_owned).to_vec()).await;
    let text = String::from_utf8_lossy(&output.stdout);
    text.contains("read 4096/4096") && !text.contains("verification failed")
}

#[tokio::test]
async fn the_image_is_read_and_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut server = RootServer::start(config.clone()).await.unwrap();
    assert!(reads(&config).await);
    let args = ["-f", "raw", "-c", "write 0 512", &url(&config)];
    let output = run("qemu-io", args.map(str::to_owned).to_vec()).await;
    assert!(!output.status.success(), "{output:?}");
    server.stop().await.unwrap();
    assert!(!reads(&config).await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_serves_the_same_at_the_same_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut server = RootServer::start(config.clone()).await.unwrap();
    let first = server.pid().unwrap();
    server.restart().await.unwrap();
    assert_ne!(server.pid(), Some(first));
    assert!(reads(&config).await);
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let server = RootServer::start(config.clone()).await.unwrap();
    let pid = server.pid().unwrap();
    drop(server);
    let gone = async {
        while Path::new(&format!("/proc/{pid}")).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("qemu-nbd goes with its owner");
}

#[tokio::test]
async fn serving_goes_on_after_a_kill_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (ready_tx, ready_rx) = tokio::sync::oneshot::channel();
    let (stop_tx, stop_rx) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(serve(
        config.clone(),
        |server| ready_tx.send(server.pid().unwrap()).unwrap(),
        async { stop_rx.await.unwrap() },
    ));
    let pid = i32::try_from(ready_rx.await.unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let again = async {
        while !reads(&config).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again)
        .await
        .expect("it is started again");
    stop_tx.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(!reads(&config).await);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let _other = TcpListener::bind(config.listen).unwrap();
    let error = RootServer::start(config.clone()).await.unwrap_err();
    let port = config.listen.port();
    assert_eq!(
        error.to_string(),
        format!(
            "serving a root on 127.0.0.1:{port}: the port is in use by another program; see which with `ss -ltnp 'sport = :{port}'`, stop it or choose another port"
        )
    );
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = config(dir.path());
    let no_image = RootServerConfig {
        image: dir.path().join("none"),
        ..good.clone()
    };
    assert!(matches!(
        RootServer::start(no_image).await,
        Err(ExportError::MissingImage { .. })
    ));
    let no_name = RootServerConfig {
        export: "a b".to_owned(),
        ..good.clone()
    };
    assert!(matches!(
        RootServer::start(no_name).await,
        Err(ExportError::BadExportName { .. })
    ));
    let elsewhere = RootServerConfig {
        listen: "192.0.2.1:10810".parse().unwrap(),
        ..good.clone()
    };
    assert!(matches!(
        RootServer::start(elsewhere).await,
        Err(ExportError::CannotListen { .. })
    ));
    let no_key = RootServerConfig {
        credentials: Some(dir.path().to_path_buf()),
        ..good
    };
    let error = RootServer::start(no_key).await.unwrap_err();
    assert!(
        matches!(
            error,
            ExportError::MissingCredential {
                file: "ca-cert.pem",
                ..
            }
        ),
        "{error}"
    );
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn authority(dir: PathBuf, name: &str) -> PathBuf {
    fs::create_dir_all(&dir).unwrap();
    openssl(
        &dir,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "ca-key.pem",
            "-out",
            "ca-cert.pem",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
        ],
    );
    for role in ["server", "client"] {
        openssl(
            &dir,
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-keyout",
                &format!("{role}-key.pem"),
                "-out",
                "request.pem",
                "-subj",
                &format!("/CN={role}"),
            ],
        );
        fs::write(dir.join("extensions"), format!("subjectAltName=IP:127.0.0.1\nextendedKeyUsage={role}Auth\nkeyUsage=critical,digitalSignature,keyEncipherment\nbasicConstraints=critical,CA:FALSE\n")).unwrap();
        openssl(
            &dir,
            &[
                "x509",
                "-req",
                "-in",
                "request.pem",
                "-CA",
                "ca-cert.pem",
                "-CAkey",
                "ca-key.pem",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "extensions",
                "-out",
                &format!("{role}-cert.pem"),
            ],
        );
    }
    dir
}

async fn info_over_tls(config: &RootServerConfig, credentials: &Path) -> bool {
    let (host, port) = (config.listen.ip(), config.listen.port());
    let output = run(
        "qemu-img",
        vec![
            "info".to_owned(),
            "--object".to_owned(),
            format!("tls-creds-x509,id=t,dir={},endpoint=client,verify-peer=yes", credentials.display()),
            "--image-opts".to_owned(),
            format!("driver=nbd,server.type=inet,server.host={host},server.port={port},export=root,tls-creds=t"),
        ],
    )
    .await;
    String::from_utf8_lossy(&output.stdout).contains("1 MiB (1048576 bytes)")
}

#[tokio::test]
async fn tls_takes_only_those_of_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority(dir.path().join("ours"), "ours");
    let theirs = authority(dir.path().join("theirs"), "theirs");
    let config = RootServerConfig {
        credentials: Some(ours.clone()),
        ..config(dir.path())
    };
    let _server = RootServer::start(config.clone()).await.unwrap();
    assert!(info_over_tls(&config, &ours).await);
    assert!(!reads(&config).await, "in the clear");
    // A stranger's client: their certificate, but our authority to check the server by.
    let stranger = dir.path().join("stranger");
    fs::create_dir(&stranger).unwrap();
    fs::copy(ours.join("ca-cert.pem"), stranger.join("ca-cert.pem")).unwrap();
    for file in ["client-cert.pem", "client-key.pem"] {
        fs::copy(theirs.join(file), stranger.join(file)).unwrap();
    }
    assert!(!info_over_tls(&config, &stranger).await, "a stranger");
}
