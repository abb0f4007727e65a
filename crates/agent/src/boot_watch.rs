//! Watches a clone's boot: reads its report as it comes. Gives it its identity where that does not come by fw_cfg.
//! Later it listens to what the clone's own system says on the same port, and asks it once how it came up.

use crate::boot_log::BootLog;
use crate::system_boot;
use estive_boot::record::SystemBoot;
use estive_boot::report::Phase;
use estive_hypervisor::guest_agent::GuestAgent;
use estive_hypervisor::{Channels, Hypervisor};
use estive_model::{Clock, DomainName};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const POLL: Duration = Duration::from_millis(20);
/// Polls between two looks whether the guest is still there.
const POLLS_BETWEEN_LOOKS: u32 = 50;
/// Once it has booted.
const SLOW_POLL: Duration = Duration::from_secs(1);
const SLOW_POLLS_BETWEEN_LOOKS: u32 = 10;
/// A guest that has said nothing final for so long is not watched any more.
const PATIENCE: Duration = Duration::from_secs(900);
const IDENTITY_RETRY: Duration = Duration::from_secs(1);

/// One boot to be watched.
pub struct BootWatch {
    /// The domain.
    pub name: DomainName,
    /// Its directory.
    pub place: PathBuf,
    /// Where what is seen goes.
    pub log: Arc<Mutex<BootLog>>,
    /// The identity to write to its port, when it does not come by fw_cfg.
    pub identity: Option<String>,
    /// It boots here; else it has booted elsewhere, or long ago.
    pub boots: bool,
    /// Held while a layer is pushed: the guest's agent speaks to one at a time.
    pub pushing: Arc<tokio::sync::Mutex<()>>,
}

impl BootWatch {
    /// Watches until the instance is gone.
    pub async fn run(self, hypervisor: Arc<dyn Hypervisor>, clock: Arc<dyn Clock>) {
        let channels = hypervisor.channels(&self.name);
        if self.boots {
            self.boot(&*hypervisor, &channels, &*clock).await;
        }
        let guest = GuestAgent::new(&channels.guest_agent);
        let mut asking = system_boot::Asking::default();
        let mut polls = 0_u32;
        loop {
            self.read_on(&channels.report, &*clock);
            polls += 1;
            if polls.is_multiple_of(SLOW_POLLS_BETWEEN_LOOKS) && self.is_gone(&*hypervisor).await {
                return;
            }
            self.ask_system(&guest, &mut asking, &*clock).await;
            tokio::time::sleep(SLOW_POLL).await;
        }
    }

    /// Asks the clone's own init how it came up, once it has done so, as long as that is not known.
    async fn ask_system(
        &self,
        guest: &GuestAgent,
        asking: &mut system_boot::Asking,
        clock: &dyn Clock,
    ) {
        let Some(number) = self.unasked(asking) else {
            return;
        };
        // Somebody who pushes a layer comes first.
        if self.pushing.try_lock().is_err() {
            return;
        }
        let said = match asking.ask(guest, number).await {
            system_boot::Said::Later => return,
            system_boot::Said::System(system) => Ok(SystemBoot {
                told_ms: clock.now_ms(),
                ..system
            }),
            system_boot::Said::Nothing(reason) => Err(reason),
        };
        let mut log = self.log();
        // It may have begun again while it was asked.
        let Some(boot) = log.boots.last_mut().filter(|boot| boot.number == number) else {
            return;
        };
        match said {
            Ok(system) => boot.system = Some(system),
            Err(reason) => boot.system_unknown = Some(reason),
        }
        let cleaned = std::mem::take(boot).cleaned();
        *boot = cleaned;
        log.keep(&self.place);
    }

    /// The boot of which nothing is known beyond its early userspace, if its time has come.
    fn unasked(&self, asking: &mut system_boot::Asking) -> Option<u64> {
        let log = self.log();
        let boot = log.boots.last()?;
        let is_known = boot.system.is_some() || boot.system_unknown.is_some();
        let has_switched = boot.phase(Phase::Switch).is_some();
        let is_due = asking.is_due(boot.number, boot.answered.is_some());
        (has_switched && !is_known && is_due).then_some(boot.number)
    }

    fn log(&self) -> MutexGuard<'_, BootLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the clone's own init runs, init has given up, or the instance is gone.
    async fn boot(&self, hypervisor: &dyn Hypervisor, channels: &Channels, clock: &dyn Clock) {
        let watching = async {
            let mut polls = 0_u32;
            loop {
                let over = self.read_on(&channels.report, clock);
                polls += 1;
                let looked = polls.is_multiple_of(POLLS_BETWEEN_LOOKS);
                if over || (looked && self.is_gone(hypervisor).await) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let watching = tokio::time::timeout(PATIENCE, watching);
        tokio::pin!(watching);
        let Some(identity) = &self.identity else {
            let _ = watching.await;
            return;
        };
        tokio::select! {
            _ = &mut watching => return,
            () = self.give_identity(&channels.identity, identity) => {}
        }
        let _ = watching.await;
    }

    /// Takes what was added to the report; says whether the boot is over.
    fn read_on(&self, report: &Path, clock: &dyn Clock) -> bool {
        let mut log = self.log();
        if log.read_on(report, clock.now_ms()).unwrap_or(false) {
            log.keep(&self.place);
        }
        log.is_over()
    }

    async fn is_gone(&self, hypervisor: &dyn Hypervisor) -> bool {
        matches!(
            hypervisor.state(&self.name).await,
            Ok(estive_hypervisor::InstanceState::Gone)
        )
    }

    /// Writes the identity again and again until the guest says that it has it.
    async fn give_identity(&self, socket: &Path, identity: &str) {
        let line = format!("{identity}\n");
        while !self.log().has_identity() {
            let stream = tokio::net::UnixStream::connect(socket).await;
            match stream {
                Ok(mut stream) => {
                    let _ = stream.write_all(line.as_bytes()).await;
                    // Held open for a while: the guest may not have opened its port yet.
                    tokio::time::sleep(IDENTITY_RETRY).await;
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}
