//! What every [`Hypervisor`] must do, as one suite that the real and the simulated driver both pass.
//!
//! A case fails by a panic that says what was expected. Every wait has a bound and ends with what is waited for.

pub mod counting_disk;
mod images;
mod lives;
mod moves;

use crate::seam::*;
use async_trait::async_trait;
use estive_model::{DomainName, DomainSpec, ImageSpec, Machine};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// One of the two hosts of a bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where domains start.
    Here,
    /// Where they go.
    There,
}

/// Two hosts that can reach each other, and a guest that shows whether it runs.
///
/// The guest counts: it raises a number every few milliseconds while its processors run, shows it, and keeps
/// counting from there after a move or a restore. It powers itself off when the power button is pressed.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The driver of a side. Held by a case no longer than one call, so that [`Bench::restart`] can drop it.
    fn hypervisor(&self, side: Side) -> Arc<dyn Hypervisor>;
    /// Drops the driver of a side and makes a new one that knows nothing, as a restart of the agent does.
    async fn restart(&self, side: Side);
    /// Address at which a side takes streams in.
    fn address(&self, side: Side) -> IpAddr;
    /// A port nobody listens on.
    async fn free_port(&self, side: Side) -> u16;
    /// The name in a side's certificate, if streams to it go over TLS.
    fn tls_name(&self, side: Side) -> Option<String>;
    /// Where a connection attempt is neither taken nor refused, each in another way.
    async fn mute(&self) -> Vec<StreamAddress>;
    /// A guest that counts.
    fn spec(&self, domain: &DomainName) -> DomainSpec;
    /// One whose instance ends at its start.
    fn broken_spec(&self, domain: &DomainName) -> DomainSpec;
    /// An ordinary machine that counts, its disk fresh in an image file that both sides see.
    fn image_spec(&self, domain: &DomainName) -> ImageSpec;
    /// Up to which number the machine's disk has every one, where there is a disk.
    fn image_holds(&self, domain: &DomainName) -> Option<u64>;
    /// The highest number the instance that stands (or stood last) on this side has shown; 0 if it showed none.
    async fn count(&self, side: Side, domain: &DomainName) -> u64;
    /// Ends the instance from outside, as a crash does.
    async fn crash(&self, side: Side, domain: &DomainName);
    /// A place for a file of saved state.
    fn saved_state(&self) -> std::path::PathBuf;
    /// Longest time anything may take.
    fn bound(&self) -> Duration;
    /// Parameters under which a pre-copy goes on for longer than a case lasts.
    fn slow(&self) -> MigrationParameters;
}

/// A running case.
pub type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A case: its name, and how it is run.
pub type Case = (&'static str, for<'a> fn(&'a dyn Bench) -> Running<'a>);

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        [$((stringify!($case), (|bench| Box::pin($module::$case(bench))) as for<'a> fn(&'a dyn Bench) -> Running<'a>)),*]
    };
}

/// Every case. Each makes its own domain and removes it; a case that fails leaves it to the bench.
pub fn cases() -> Vec<Case> {
    cases![
        lives::start_pause_and_kill,
        lives::an_instance_is_made_once,
        lives::an_instance_that_dies_at_its_start_leaves_nothing,
        lives::a_crash_is_seen_and_told,
        lives::the_power_button_ends_the_guest_and_says_so,
        lives::a_new_driver_adopts_without_disturbing,
        lives::a_saved_guest_counts_on_when_restored,
        lives::a_saved_guest_may_go_on_where_it_was,
        lives::a_state_that_cannot_be_restored_leaves_nothing,
        moves::a_guest_moves_there_and_back,
        moves::a_halted_guest_moves_halted,
        moves::a_port_in_use_is_refused,
        moves::nobody_listens,
        moves::nobody_answers,
        moves::given_up_while_connecting,
        moves::a_destination_of_another_name_gets_nothing,
        moves::given_up_in_pre_copy,
        moves::given_up_after_completion,
        moves::the_source_dies_in_pre_copy,
        moves::the_destination_dies_in_pre_copy,
        moves::the_destination_dies_before_the_stream,
        moves::the_destination_dies_after_completion,
        moves::the_source_dies_after_completion,
        moves::the_driver_restarts_in_pre_copy,
        moves::post_copy_lets_the_destination_run_first,
        images::a_machine_with_an_image_moves_and_its_disk_has_all,
        images::a_machine_with_an_image_goes_on_where_it_was_after_the_stream,
        images::a_saved_machine_with_an_image_leaves_it_be_and_takes_it_again,
    ]
    .into()
}

/// What the cases say often.
struct Stage<'a> {
    bench: &'a dyn Bench,
    domain: DomainName,
    machine: Machine,
}

impl<'a> Stage<'a> {
    fn new(bench: &'a dyn Bench, name: &str) -> Self {
        let domain = DomainName::new(name).expect("cases use names that are fit");
        let machine = bench.spec(&domain).into();
        Self {
            bench,
            domain,
            machine,
        }
    }

    /// One with an image.
    fn with_image(bench: &'a dyn Bench, name: &str) -> Self {
        let stage = Self::new(bench, name);
        let machine = bench.image_spec(&stage.domain).into();
        Self { machine, ..stage }
    }

    /// One with another's image.
    fn with_the_image_of(other: &Stage<'a>, name: &str) -> Self {
        let stage = Self::new(other.bench, name);
        let machine = match other.spec() {
            Machine::Images(spec) => Machine::Images(ImageSpec {
                name: stage.domain.clone(),
                ..spec
            }),
            clone => clone,
        };
        Self { machine, ..stage }
    }

    fn on(&self, side: Side) -> Arc<dyn Hypervisor> {
        self.bench.hypervisor(side)
    }

    fn spec(&self) -> Machine {
        self.machine.clone()
    }

    async fn state(&self, side: Side) -> InstanceState {
        self.on(side)
            .state(&self.domain)
            .await
            .expect("an instance tells its state")
    }

    /// Waits until `done` gives something.
    async fn until<T>(&self, what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
        let bound = self.bench.bound();
        let wait = async {
            loop {
                if let Some(value) = done().await {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(bound, wait).await {
            Ok(value) => value,
            Err(_) => panic!(
                "{}: {what} was not seen within {bound:?}; here it is {:?}, there {:?}",
                self.domain,
                self.on(Side::Here).state(&self.domain).await,
                self.on(Side::There).state(&self.domain).await,
            ),
        }
    }

    async fn until_state(&self, side: Side, state: InstanceState) {
        self.until(&format!("{state:?} {side:?}"), async || {
            (self.state(side).await == state).then_some(())
        })
        .await;
    }

    /// Waits for the end of the outgoing migration of `side`.
    async fn until_over(&self, side: Side) -> MigrationProgress {
        self.until("the end of the migration", async || {
            let progress = self
                .on(side)
                .migration(&self.domain)
                .await
                .expect("a source tells");
            matches!(
                progress.status,
                MigrationStatus::Completed | MigrationStatus::Failed | MigrationStatus::Cancelled
            )
            .then_some(progress)
        })
        .await
    }

    async fn until_copying(&self, side: Side) {
        self.until("pre-copy", async || {
            let progress = self
                .on(side)
                .migration(&self.domain)
                .await
                .expect("a source tells");
            (progress.status == MigrationStatus::Active && progress.sent_bytes > 0).then_some(())
        })
        .await;
    }

    /// The processors run: the guest counts on from what it has shown.
    async fn counts(&self, side: Side) -> u64 {
        let before = self.bench.count(side, &self.domain).await;
        self.until("a count that rises", async || {
            let now = self.bench.count(side, &self.domain).await;
            (now > before).then_some(now)
        })
        .await
    }

    /// The processors do not run. (A fact about a span: the only place where a span is waited for.)
    async fn stands_still(&self, side: Side) -> u64 {
        let before = self.bench.count(side, &self.domain).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after = self.bench.count(side, &self.domain).await;
        assert_eq!(
            before, after,
            "{} runs {side:?} though its processors are halted",
            self.domain
        );
        after
    }

    async fn started(&self, side: Side) {
        let hypervisor = self.on(side);
        hypervisor
            .create(&self.spec())
            .await
            .expect("an instance is made");
        hypervisor
            .resume(&self.domain)
            .await
            .expect("its processors are started");
        drop(hypervisor);
        self.counts(side).await;
    }

    /// A destination that waits.
    async fn awaited(&self, side: Side, parameters: &MigrationParameters) -> StreamAddress {
        let port = self.bench.free_port(side).await;
        let host = self.bench.address(side);
        let tls_name = self.bench.tls_name(side);
        self.on(side)
            .create_incoming(&self.spec(), host, port, tls_name.is_some(), parameters)
            .await
            .expect("a destination is made");
        assert_eq!(self.state(side).await, InstanceState::AwaitingStream);
        StreamAddress {
            host,
            port,
            tls_name,
        }
    }

    async fn sent(&self, side: Side, to: &StreamAddress, parameters: &MigrationParameters) {
        self.on(side)
            .migrate(&self.domain, to, parameters)
            .await
            .expect("the order to migrate is taken");
    }

    /// Started here, a destination there, and a pre-copy that will not end by itself.
    async fn copying(&self) {
        let slow = self.bench.slow();
        self.started(Side::Here).await;
        let to = self.awaited(Side::There, &slow).await;
        self.sent(Side::Here, &to, &slow).await;
        self.until_copying(Side::Here).await;
    }

    /// Started here, sent there completely, run nowhere.
    async fn moved(&self) {
        self.started(Side::Here).await;
        self.left().await;
    }

    /// What runs here is sent there completely.
    async fn left(&self) {
        let parameters = MigrationParameters::default();
        let to = self.awaited(Side::There, &parameters).await;
        self.sent(Side::Here, &to, &parameters).await;
        let progress = self.until_over(Side::Here).await;
        assert_eq!(progress.status, MigrationStatus::Completed, "{progress:?}");
        assert_eq!(self.state(Side::Here).await, InstanceState::Sent);
        assert_eq!(self.state(Side::There).await, InstanceState::Loaded);
    }

    async fn cleared(&self) {
        for side in [Side::Here, Side::There] {
            self.on(side)
                .kill(&self.domain)
                .await
                .expect("an instance can be killed");
            assert_eq!(self.state(side).await, InstanceState::Gone);
        }
    }
}
