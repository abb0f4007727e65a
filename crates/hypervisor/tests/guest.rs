//! The conformance suite on real guests.
//!
//! `ESTIVE_KERNEL_TREE`: a directory with `boot/vmlinuz-*` and `lib/modules/*` (an unpacked kernel package); without it
//! the cases are ignored. `ESTIVE_QEMU`: another emulator.

use async_trait::async_trait;
use estive_hypervisor::conformance::{self, Bench, Side, counting_disk};
use estive_hypervisor::*;
use estive_model::{
    BlockSource, Checksummed, DomainName, DomainSpec, ImageDisk, ImageFile, ImageFormat, ImageSpec,
    LAYER_DISK_BYTES,
};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const KERNEL_TREE: &str = "ESTIVE_KERNEL_TREE";

fn main() {
    let mut arguments = Arguments::from_args();
    // One guest at a time: they share few processors, and no case may wait for another.
    arguments.test_threads = Some(1);
    let no_tree = std::env::var_os(KERNEL_TREE).is_none();
    let trials = conformance::cases()
        .into_iter()
        .map(|(name, case)| Trial::test(name, move || run(case)).with_ignored_flag(no_tree));
    let silent = Trial::test(
        "an_instance_that_does_not_answer_is_found_and_left_alone",
        || run(|bench| Box::pin(a_halted_process_is_left_alone(bench))),
    );
    let trials = trials.chain([silent.with_ignored_flag(no_tree)]);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // A static is never dropped.
    if let Some(Ok(guest)) = GUEST.get() {
        let _ = fs::remove_dir_all(guest.directory.path());
    }
    conclusion.exit();
}

static GUEST: OnceLock<Result<Guest, String>> = OnceLock::new();

/// What only a process can do: stand and say nothing.
async fn a_halted_process_is_left_alone(bench: &dyn Bench) {
    use rustix::process::{Pid, Signal, kill_process};
    let domain = DomainName::new("silent").unwrap();
    let hypervisor = bench.hypervisor(Side::Here);
    hypervisor
        .create(&bench.spec(&domain).into())
        .await
        .unwrap();
    let found = hypervisor.adopt().await.unwrap();
    let pid = Pid::from_raw(i32::try_from(found[0].pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // The same directory, by a driver that waits for no long.
    let directory = hypervisor
        .channels(&domain)
        .console
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    drop(hypervisor);
    bench.restart(Side::Here).await;
    let mut config = QemuConfig::new(directory);
    config.patience = Duration::from_millis(300);
    let impatient = QemuHypervisor::new(config).await.unwrap();
    let found = impatient.adopt().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].state, found[0].pid),
        (None, u32::try_from(pid.as_raw_nonzero().get()).unwrap())
    );
    let state = impatient.state(&domain).await;
    assert!(
        matches!(state, Err(HypervisorError::Silent { .. })),
        "{state:?}"
    );
    let again = impatient.create(&bench.spec(&domain).into()).await;
    assert!(
        matches!(again, Err(HypervisorError::Exists(_))),
        "{again:?}"
    );
    kill_process(pid, Signal::CONT).unwrap();
    drop(impatient);
    let hypervisor = bench.hypervisor(Side::Here);
    assert_eq!(
        hypervisor.state(&domain).await.unwrap(),
        InstanceState::Prelaunch
    );
    kill_process(pid, Signal::STOP).unwrap();
    hypervisor.kill(&domain).await.unwrap();
    assert_eq!(
        hypervisor.state(&domain).await.unwrap(),
        InstanceState::Gone
    );
}

fn run(case: for<'a> fn(&'a dyn Bench) -> conformance::Running<'a>) -> Result<(), Failed> {
    let guest = GUEST
        .get_or_init(Guest::build)
        .as_ref()
        .map_err(|error| error.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let bench = RealBench::new(guest).await;
        let case = std::panic::AssertUnwindSafe(case(&bench));
        let done = tokio::select! {
            done = futures_util::FutureExt::catch_unwind(case) => done,
            // A case bounds each of its waits; this bounds their sum.
            () = tokio::time::sleep(Duration::from_secs(600)) => Err(Box::new("took 600 s") as _),
        };
        bench.clean().await;
        done.map_err(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words =
                words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failed::from(words.unwrap_or_default())
        })
    })
}

/// Kernel, initramfs and disks that every case shares.
struct Guest {
    directory: tempfile::TempDir,
    kernel: PathBuf,
}

impl Guest {
    fn build() -> Result<Self, String> {
        let tree = std::env::var_os(KERNEL_TREE).map(PathBuf::from).ok_or_else(|| {
            format!("set {KERNEL_TREE} to a directory with boot/vmlinuz-* and lib/modules/*, such as an unpacked linux-image package")
        })?;
        let kernel = find(&tree.join("boot"), "vmlinuz-")?;
        let modules = find(&tree.join("lib/modules"), "")?.join("kernel/drivers");
        let directory = tempfile::Builder::new()
            .prefix("hv")
            .tempdir()
            .map_err(words)?;
        let at = |name: &str| directory.path().join(name);
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        // With a target named, flags meant for the host are not mixed in; static, as PID 1 has no libraries.
        let built = Command::new(rustc)
            .args(["--edition=2024", "-O", "-Cpanic=abort", "-Cstrip=symbols"])
            .args([
                "-Ctarget-feature=+crt-static",
                "--target=x86_64-unknown-linux-gnu",
                "-o",
            ])
            .arg(at("counter"))
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/counter/counter.rs"
            ))
            .status()
            .map_err(words)?;
        if !built.success() {
            return Err("rustc could not build the guest's program".into());
        }
        let mut archive = Vec::new();
        member(&mut archive, "dev", 0o040_755, (0, 0), b"");
        member(&mut archive, "dev/console", 0o020_600, (5, 1), b"");
        for number in 0..4 {
            let name = format!("dev/event{number}");
            member(&mut archive, &name, 0o020_600, (13, 64 + number), b"");
        }
        member(
            &mut archive,
            "init",
            0o100_755,
            (0, 0),
            &fs::read(at("counter")).map_err(words)?,
        );
        for module in ["acpi/button.ko", "input/evdev.ko"] {
            for suffix in ["", ".xz"] {
                let file = modules.join(format!("{module}{suffix}"));
                if let Ok(content) = fs::read(&file) {
                    let name = file
                        .file_name()
                        .map(|name| name.to_string_lossy().into_owned());
                    member(
                        &mut archive,
                        &name.unwrap_or_default(),
                        0o100_644,
                        (0, 0),
                        &content,
                    );
                }
            }
        }
        member(&mut archive, "TRAILER!!!", 0, (0, 0), b"");
        fs::write(at("initramfs"), archive).map_err(words)?;
        for (name, length) in [
            ("layer", LAYER_DISK_BYTES),
            ("root", 1 << 20),
            ("modules", 1 << 20),
        ] {
            fs::File::create(at(name))
                .and_then(|file| file.set_len(length))
                .map_err(words)?;
        }
        credentials(directory.path()).map_err(|error| error.to_string())?;
        Ok(Self { kernel, directory })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn host_name(side: Side) -> String {
    format!("{side:?}").to_lowercase()
}

/// One directory of credentials for each side, as QEMU reads them.
fn credentials(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    use rcgen::KeyUsagePurpose::{DigitalSignature, KeyCertSign, KeyEncipherment};
    let authority_key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyCertSign, DigitalSignature];
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    let authority = parameters.self_signed(&authority_key)?.pem();
    let issuer = rcgen::Issuer::from_params(&parameters, &authority_key);
    for side in [Side::Here, Side::There] {
        let name = host_name(side);
        let place = directory.join(&name);
        fs::create_dir(&place)?;
        fs::write(place.join("ca-cert.pem"), &authority)?;
        for (role, purpose) in [
            ("server", rcgen::ExtendedKeyUsagePurpose::ServerAuth),
            ("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = rcgen::KeyPair::generate()?;
            let mut parameters = rcgen::CertificateParams::new(vec![name.clone()])?;
            parameters
                .distinguished_name
                .push(rcgen::DnType::CommonName, name.as_str());
            // QEMU 7.2 asks for key encipherment whatever the kind of key.
            parameters.key_usages = vec![DigitalSignature, KeyEncipherment];
            parameters.extended_key_usages = vec![purpose];
            fs::write(
                place.join(format!("{role}-cert.pem")),
                parameters.signed_by(&key, &issuer)?.pem(),
            )?;
            fs::write(place.join(format!("{role}-key.pem")), key.serialize_pem())?;
        }
    }
    Ok(())
}

/// The first entry of a directory whose name begins so.
fn find(directory: &Path, prefix: &str) -> Result<PathBuf, String> {
    let entries =
        fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| format!("{} holds no {prefix}*", directory.display()))
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}

/// One member of a newc archive (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
fn member(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let fields = [
        archive.len(),
        mode as usize,
        0,
        0,
        1,
        0,
        content.len(),
        0,
        0,
        device.0 as usize,
        device.1 as usize,
        name.len() + 1,
        0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

struct RealBench {
    guest: &'static Guest,
    directory: tempfile::TempDir,
    drivers: Mutex<HashMap<Side, Arc<dyn Hypervisor>>>,
    saved: AtomicUsize,
    /// Listeners whose queues are full, and what fills them.
    mute: Mutex<Vec<(TcpListener, Vec<TcpStream>)>>,
}

impl RealBench {
    async fn new(guest: &'static Guest) -> Self {
        let directory = tempfile::Builder::new().prefix("hv").tempdir().unwrap();
        let bench = Self {
            guest,
            directory,
            drivers: Mutex::default(),
            saved: AtomicUsize::new(0),
            mute: Mutex::default(),
        };
        bench.restart(Side::Here).await;
        bench.restart(Side::There).await;
        bench
    }

    /// Kills whatever a case has left.
    async fn clean(&self) {
        for side in [Side::Here, Side::There] {
            let hypervisor = self.hypervisor(side);
            for found in hypervisor.adopt().await.unwrap() {
                hypervisor.kill(&found.domain).await.unwrap();
            }
        }
    }
}

#[async_trait]
impl Bench for RealBench {
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor> {
        self.drivers.lock().unwrap()[&side].clone()
    }

    async fn restart(&self, side: Side) {
        let old = self.drivers.lock().unwrap().remove(&side);
        assert!(
            old.is_none_or(|old| Arc::strong_count(&old) == 1),
            "a case holds a driver"
        );
        let mut config = QemuConfig::new(self.directory.path().join(format!("{side:?}")));
        if let Some(emulator) = std::env::var_os("ESTIVE_QEMU") {
            config.emulator = emulator.into();
        }
        config.credentials = Some(self.guest.file(&host_name(side)));
        // Many guests may share this machine's processors with other tests.
        config.patience = Duration::from_secs(60);
        let driver = QemuHypervisor::new(config).await.unwrap();
        self.drivers.lock().unwrap().insert(side, Arc::new(driver));
    }

    fn address(&self, _side: Side) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    async fn free_port(&self, side: Side) -> u16 {
        TcpListener::bind((self.address(side), 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    fn tls_name(&self, side: Side) -> Option<String> {
        Some(host_name(side))
    }

    async fn mute(&self) -> Vec<StreamAddress> {
        // A queue of one that is full and never emptied: Linux drops further connection attempts silently.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let full = socket.listen(1).unwrap().into_std().unwrap();
        let mut filling = Vec::new();
        let at = full.local_addr().unwrap();
        while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
            filling.push(stream);
        }
        // Connections are taken by the system, but nobody begins a handshake.
        let asleep = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut addresses = Vec::new();
        for listener in [full, asleep] {
            let at = listener.local_addr().unwrap();
            addresses.push(StreamAddress {
                host: at.ip(),
                port: at.port(),
                tls_name: self.tls_name(Side::There),
            });
            self.mute
                .lock()
                .unwrap()
                .push((listener, std::mem::take(&mut filling)));
        }
        addresses
    }

    fn spec(&self, domain: &DomainName) -> DomainSpec {
        let file = |path| Checksummed { path, digest: None };
        DomainSpec {
            name: domain.clone(),
            uuid: "6f2c4b1e-4c8e-4d8b-9f43-0c1f6a2f5a10".into(),
            memory_mib: 128,
            cpus: 1,
            kernel: file(self.guest.kernel.clone()),
            initramfs: file(self.guest.file("initramfs")),
            command_line: "console=ttyS0 quiet net.ifnames=0".into(),
            layer: self.guest.file("layer"),
            root: BlockSource::File(self.guest.file("root")),
            modules: BlockSource::File(self.guest.file("modules")),
            volume: None,
            interface: None,
            identity: Some("{\"version\":1}".into()),
        }
    }

    fn broken_spec(&self, domain: &DomainName) -> DomainSpec {
        DomainSpec {
            root: BlockSource::File(self.guest.file("no, such, root")),
            ..self.spec(domain)
        }
    }

    fn image_spec(&self, domain: &DomainName) -> ImageSpec {
        let path = format!("{domain}.raw");
        let images = self.directory.path();
        counting_disk::make(&images.join(&path)).unwrap();
        ImageSpec {
            name: domain.clone(),
            uuid: "6f2c4b1e-4c8e-4d8b-9f43-0c1f6a2f5a10".into(),
            memory_mib: 64,
            cpus: 1,
            kernel: None,
            disks: vec![ImageDisk {
                file: ImageFile {
                    top: images.to_owned(),
                    path,
                },
                format: ImageFormat::Raw,
                read_only: false,
                discard: false,
                serial: None,
            }],
            interface: None,
        }
    }

    fn image_holds(&self, domain: &DomainName) -> Option<u64> {
        let disk = self.directory.path().join(format!("{domain}.raw"));
        Some(counting_disk::holds(&disk).unwrap())
    }

    async fn count(&self, side: Side, domain: &DomainName) -> u64 {
        counting_disk::shown(&self.hypervisor(side).channels(domain).console_log)
    }

    async fn crash(&self, side: Side, domain: &DomainName) {
        let found = self.hypervisor(side).adopt().await.unwrap();
        let pid = found
            .iter()
            .find(|found| found.domain == *domain)
            .unwrap()
            .pid;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn saved_state(&self) -> PathBuf {
        let number = self.saved.fetch_add(1, Ordering::SeqCst);
        self.directory.path().join(format!("saved,{number}"))
    }

    fn bound(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn slow(&self) -> MigrationParameters {
        MigrationParameters {
            bandwidth_bytes_per_s: 256 << 10,
            ..MigrationParameters::default()
        }
    }
}
