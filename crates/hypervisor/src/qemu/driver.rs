//! [`QemuHypervisor`] as a [`Hypervisor`].

use super::directory::{Directory, failed};
use super::images;
use super::{Accel, QemuHypervisor};
use crate::image_files::{FileId, Grip};
use crate::seam::*;
use async_trait::async_trait;
use estive_model::{DomainName, Machine};
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::broadcast;

#[async_trait]
impl Hypervisor for QemuHypervisor {
    async fn create(&self, machine: &Machine) -> Result<(), HypervisorError> {
        let (inner, machine) = (self.inner.clone(), machine.clone());
        detached(async move {
            let _turn = inner.turn(machine.name()).await;
            inner.launch(&machine, false).await.map(drop)
        })
        .await
    }

    async fn create_incoming(
        &self,
        machine: &Machine,
        listen: IpAddr,
        port: u16,
        tls: bool,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        let (inner, machine, parameters) =
            (self.inner.clone(), machine.clone(), parameters.clone());
        detached(async move {
            let _turn = inner.turn(machine.name()).await;
            let late = matches!(machine, Machine::Images(_));
            let instance = inner.launch(&machine, true).await?;
            let listening = instance.listen(listen, port, tls, &parameters, late).await;
            if listening.is_err() {
                inner.remove(&instance).await?;
                instance.directory.discard();
            }
            listening
        })
        .await
    }

    async fn restore(&self, machine: &Machine, from: &Path) -> Result<(), HypervisorError> {
        let (inner, machine, from) = (self.inner.clone(), machine.clone(), from.to_owned());
        detached(async move {
            let _turn = inner.turn(machine.name()).await;
            let instance = inner.launch(&machine, true).await?;
            let loaded = async {
                instance.load(&from).await?;
                match machine {
                    Machine::Images(_) => instance.take_disks().await,
                    Machine::Clone(_) => Ok(()),
                }
            };
            let loaded = loaded.await;
            if loaded.is_err() {
                inner.remove(&instance).await?;
                instance.directory.discard();
            }
            loaded
        })
        .await
    }

    async fn save(&self, domain: &DomainName, to: &Path) -> Result<(), HypervisorError> {
        let (instance, to) = (self.inner.required(domain)?, to.to_owned());
        detached(async move { instance.save(&to).await }).await
    }

    async fn resume(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        let instance = self.inner.required(domain)?;
        detached(async move { instance.resume().await }).await
    }

    async fn pause(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.required(domain)?.pause().await
    }

    async fn power_button(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        let instance = self.inner.required(domain)?;
        instance
            .execute("system_powerdown", Value::Null)
            .await
            .map(drop)
    }

    async fn kill(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        let (inner, domain) = (self.inner.clone(), domain.clone());
        detached(async move {
            // Also an instance that is just being made: `launch` then sees it die.
            if let Some(instance) = inner.find(&domain)? {
                let _ = instance.process.kill();
            }
            let _turn = inner.turn(&domain).await;
            match inner.find(&domain)? {
                Some(instance) => inner.remove(&instance).await,
                None => {
                    let directory = inner.directory(&domain);
                    directory.clear();
                    Ok(())
                }
            }
        })
        .await
    }

    async fn erase(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        let _turn = self.inner.turn(domain).await;
        if self.inner.find(domain)?.is_none() {
            self.inner.directory(domain).erase();
        }
        Ok(())
    }

    async fn remains(&self) -> Result<Vec<DomainName>, HypervisorError> {
        let directory = &self.inner.config.runtime_dir;
        Directory::all(directory)
            .map_err(|source| failed(format!("reading {}", directory.display()), source))
    }

    async fn state(&self, domain: &DomainName) -> Result<InstanceState, HypervisorError> {
        match self.inner.find(domain)? {
            Some(instance) => instance.state().await,
            None => Ok(InstanceState::Gone),
        }
    }

    async fn migrate(
        &self,
        domain: &DomainName,
        to: &StreamAddress,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        self.inner.required(domain)?.migrate(to, parameters).await
    }

    async fn migration(&self, domain: &DomainName) -> Result<MigrationProgress, HypervisorError> {
        self.inner.required(domain)?.migration().await
    }

    async fn cancel_migration(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.required(domain)?.cancel_migration().await
    }

    async fn start_post_copy(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        let instance = self.inner.required(domain)?;
        instance
            .execute("migrate-start-postcopy", Value::Null)
            .await
            .map(drop)
    }

    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError> {
        self.inner.discover(|_| true)?;
        let instances: Vec<_> = self.inner.instances().values().cloned().collect();
        let mut asked = tokio::task::JoinSet::new();
        for instance in instances {
            asked.spawn(async move {
                let state = instance.state().await;
                if let Err(error) = &state {
                    tracing::warn!(domain = %instance.domain, %error, "a running instance does not answer");
                }
                Found {
                    domain: instance.domain.clone(),
                    state: state.ok(),
                    pid: instance.process.pid,
                }
            });
        }
        let mut found = asked.join_all().await;
        found.retain(|found| found.state != Some(InstanceState::Gone));
        found.sort_by(|one, other| one.domain.cmp(&other.domain));
        Ok(found)
    }

    async fn grip(&self, domain: &DomainName, file: FileId) -> Result<Grip, HypervisorError> {
        let Some(instance) = self.inner.find(domain)? else {
            return Ok(Grip::None);
        };
        let process = instance.process.clone();
        // What lies on a server that is gone is waited for.
        let looked = tokio::task::spawn_blocking(move || images::grip(process.pid, file));
        let looked = looked
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        // Its number may be another process's once it has ended.
        if instance.process.is_gone() {
            return Ok(Grip::None);
        }
        looked.map_err(|source| failed(format!("looking at the files of {domain}"), source))
    }

    fn channels(&self, domain: &DomainName) -> Channels {
        self.inner.directory(domain).channels()
    }

    fn events(&self) -> broadcast::Receiver<InstanceEvent> {
        self.inner.happenings.subscribe()
    }

    fn patience(&self) -> Duration {
        self.inner.config.patience
    }

    fn describe(&self) -> String {
        let accel = match self.inner.config.accel {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        };
        format!("QEMU {}, {accel}", self.inner.version)
    }
}

/// Runs to its end even when the caller goes away half-way: a request that is dropped must leave nothing half-made.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, HypervisorError>> + Send + 'static,
) -> Result<T, HypervisorError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(failed("driving QEMU".into(), std::io::Error::other(error))),
        },
    }
}
