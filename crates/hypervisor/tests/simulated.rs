//! The conformance suite on the simulated driver, in stopped time; and its faults.

use async_trait::async_trait;
use estive_hypervisor::conformance::{self, Bench, Side};
use estive_hypervisor::simulated::{BROKEN_KERNEL, Fault, SimulatedFabric, Step};
use estive_hypervisor::*;
use estive_model::{
    BlockSource, Checksummed, DomainName, DomainSpec, ImageDisk, ImageFile, ImageFormat, ImageSpec,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct SimulatedBench {
    fabric: SimulatedFabric,
    drivers: Mutex<HashMap<Side, Arc<dyn Hypervisor>>>,
    directory: tempfile::TempDir,
    number: AtomicU16,
}

impl SimulatedBench {
    async fn new() -> Self {
        let bench = Self {
            fabric: SimulatedFabric::new(),
            drivers: Mutex::default(),
            directory: tempfile::tempdir().unwrap(),
            number: AtomicU16::new(4000),
        };
        bench.restart(Side::Here).await;
        bench.restart(Side::There).await;
        bench
    }
}

#[async_trait]
impl Bench for SimulatedBench {
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor> {
        self.drivers.lock().unwrap()[&side].clone()
    }

    async fn restart(&self, side: Side) {
        let old = self.drivers.lock().unwrap().remove(&side);
        assert!(
            old.is_none_or(|old| Arc::strong_count(&old) == 1),
            "a case holds a driver"
        );
        let driver = self.fabric.hypervisor(self.address(side));
        self.drivers.lock().unwrap().insert(side, Arc::new(driver));
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Here => Ipv4Addr::new(10, 77, 0, 11).into(),
            Side::There => Ipv4Addr::new(10, 77, 0, 12).into(),
        }
    }

    async fn free_port(&self, _side: Side) -> u16 {
        self.number.fetch_add(1, Ordering::SeqCst)
    }

    fn tls_name(&self, _side: Side) -> Option<String> {
        None
    }

    async fn mute(&self) -> Vec<StreamAddress> {
        let (host, port) = (Ipv4Addr::new(10, 77, 0, 99).into(), 1);
        self.fabric.mute(SocketAddr::new(host, port));
        vec![StreamAddress {
            host,
            port,
            tls_name: None,
        }]
    }

    fn spec(&self, domain: &DomainName) -> DomainSpec {
        let file = |path: &str| Checksummed {
            path: path.into(),
            digest: None,
        };
        DomainSpec {
            name: domain.clone(),
            uuid: "6f2c4b1e-4c8e-4d8b-9f43-0c1f6a2f5a10".into(),
            memory_mib: 256,
            cpus: 1,
            kernel: file("/kernel"),
            initramfs: file("/initramfs"),
            command_line: String::new(),
            layer: "/layer".into(),
            root: BlockSource::File("/root".into()),
            modules: BlockSource::File("/modules".into()),
            volume: None,
            interface: None,
            identity: None,
        }
    }

    fn broken_spec(&self, domain: &DomainName) -> DomainSpec {
        let kernel = Checksummed {
            path: BROKEN_KERNEL.into(),
            digest: None,
        };
        DomainSpec {
            kernel,
            ..self.spec(domain)
        }
    }

    fn image_spec(&self, domain: &DomainName) -> ImageSpec {
        let path = format!("{domain}.raw");
        std::fs::write(self.directory.path().join(&path), "disk").unwrap();
        ImageSpec {
            name: domain.clone(),
            uuid: "6f2c4b1e-4c8e-4d8b-9f43-0c1f6a2f5a10".into(),
            memory_mib: 64,
            cpus: 1,
            kernel: None,
            disks: vec![ImageDisk {
                file: ImageFile {
                    top: self.directory.path().to_owned(),
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

    fn image_holds(&self, _domain: &DomainName) -> Option<u64> {
        None
    }

    async fn count(&self, side: Side, domain: &DomainName) -> u64 {
        self.fabric.count(self.address(side), domain)
    }

    async fn crash(&self, side: Side, domain: &DomainName) {
        assert!(
            self.fabric.crash(self.address(side), domain),
            "there was nothing to crash"
        );
    }

    fn saved_state(&self) -> PathBuf {
        self.directory
            .path()
            .join(self.number.fetch_add(1, Ordering::SeqCst).to_string())
    }

    fn bound(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn slow(&self) -> MigrationParameters {
        MigrationParameters {
            bandwidth_bytes_per_s: 256 << 10,
            ..MigrationParameters::default()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulation_behaves_as_the_conformance_suite_says() {
    for (name, case) in conformance::cases() {
        println!("{name}");
        let bench = SimulatedBench::new().await;
        case(&bench).await;
        assert_eq!(bench.fabric.ran_twice(), [], "{name}");
    }
}

/// Where each side's instance stands once a migration with one fault has come to rest.
async fn rest(step: Step, fault: Fault) -> (InstanceState, InstanceState, MigrationStatus) {
    let bench = SimulatedBench::new().await;
    let domain = DomainName::new("faulty").unwrap();
    let (here, there) = (bench.hypervisor(Side::Here), bench.hypervisor(Side::There));
    let parameters = MigrationParameters::default();
    let (host, port) = (bench.address(Side::There), 4444);
    let spec = bench.spec(&domain).into();
    here.create(&spec).await.unwrap();
    here.resume(&domain).await.unwrap();
    there
        .create_incoming(&spec, host, port, false, &parameters)
        .await
        .unwrap();
    bench
        .fabric
        .inject(bench.address(Side::Here), &domain, step, fault);
    here.migrate(
        &domain,
        &StreamAddress {
            host,
            port,
            tls_name: None,
        },
        &parameters,
    )
    .await
    .unwrap();
    // Longer than anything a stream waits for by itself; time is stopped, so it costs none.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = here
        .migration(&domain)
        .await
        .map_or(MigrationStatus::None, |now| now.status);
    (
        here.state(&domain).await.unwrap(),
        there.state(&domain).await.unwrap(),
        status,
    )
}

#[tokio::test(start_paused = true)]
async fn a_fault_at_any_step_of_a_stream_leaves_the_guest_at_one_place_or_none() {
    use InstanceState::*;
    for step in [
        Step::Connecting,
        Step::Copying,
        Step::Switching,
        Step::Completing,
    ] {
        let early = step == Step::Connecting;
        let waits = if early { AwaitingStream } else { Gone };
        let refused = rest(step, Fault::Refuse("no".into())).await;
        assert_eq!(
            refused,
            (Running, waits, MigrationStatus::Failed),
            "{step:?}"
        );
        let died = rest(step, Fault::Die).await;
        assert_eq!(died, (Gone, waits, MigrationStatus::None), "{step:?}");
        let peer_died = rest(step, Fault::PeerDies).await;
        if early {
            // There is no other side yet.
            assert_eq!(peer_died, (Sent, Loaded, MigrationStatus::Completed));
        } else {
            assert_eq!(
                peer_died,
                (Running, Gone, MigrationStatus::Failed),
                "{step:?}"
            );
        }
        let held = rest(step, Fault::Hold).await;
        let expected = match step {
            Step::Connecting => (Running, AwaitingStream, MigrationStatus::Failed),
            Step::Copying => (Running, AwaitingStream, MigrationStatus::Active),
            _ => (Paused, AwaitingStream, MigrationStatus::Switching),
        };
        assert_eq!(held, expected, "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_may_have_had_its_effect() {
    let bench = SimulatedBench::new().await;
    let domain = DomainName::new("unclear").unwrap();
    let here = bench.hypervisor(Side::Here);
    here.create(&bench.spec(&domain).into()).await.unwrap();
    let host = bench.address(Side::Here);
    for (fault, after) in [
        (Fault::Silent, InstanceState::Prelaunch),
        (Fault::AnswerLost, InstanceState::Running),
    ] {
        bench.fabric.inject(host, &domain, Step::Resume, fault);
        let answer = here.resume(&domain).await;
        assert!(
            matches!(answer, Err(HypervisorError::Silent { .. })),
            "{answer:?}"
        );
        assert_eq!(here.state(&domain).await.unwrap(), after);
    }
}

#[tokio::test(start_paused = true)]
async fn processors_that_run_at_two_places_are_noticed() {
    let bench = SimulatedBench::new().await;
    let domain = DomainName::new("twice").unwrap();
    for side in [Side::Here, Side::There] {
        assert_eq!(bench.fabric.ran_twice(), []);
        let hypervisor = bench.hypervisor(side);
        hypervisor
            .create(&bench.spec(&domain).into())
            .await
            .unwrap();
        hypervisor.resume(&domain).await.unwrap();
    }
    assert_eq!(bench.fabric.ran_twice(), [domain]);
}
