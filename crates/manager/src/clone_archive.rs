//! A clone as an agent takes it: a tar archive with its description, its layer and its identity.

use crate::reference::{Reference, SharedFile};
use bytes::Bytes;
use estive_api::Problem;
use estive_api::domain_xml::{
    Accelerator, CONFIG_FILE, DiskSource, DomainXml, IDENTITY_FILE, LAYER_FILE,
};
use estive_layers::{ClonePlan, domain_uuid};
use estive_model::{DeploymentName, NbdSource};
use serde_json::json;

/// Packs a clone. Files that hosts share are named by digest and not packed.
pub(crate) fn pack(
    deployment: &DeploymentName,
    clone: &ClonePlan,
    reference: &Reference,
    initramfs: &SharedFile,
    layer: &[u8],
    volume: Option<NbdSource>,
) -> Result<Bytes, Problem> {
    let words = clone.kernel_words();
    let words = words.iter().map(String::as_str);
    let command_line =
        estive_boot::command_line(clone.init.as_deref(), words).map_err(|error| {
            Problem::impossible(format!(
                "the kernel's command line of {}: {error}",
                clone.name
            ))
        })?;
    let xml = DomainXml {
        // An agent uses its own accelerator, whatever this says.
        accelerator: Accelerator::Emulation,
        name: clone.name.clone(),
        uuid: domain_uuid(deployment, &clone.name),
        memory_mib: clone.memory_mib,
        cpus: clone.cpus,
        kernel: reference.kernel.digest.clone(),
        initramfs: initramfs.digest.clone(),
        command_line,
        identity_by_fw_cfg: true,
        root: root_disk(reference),
        modules: DiskSource::File(reference.modules.digest.clone()),
        volume,
        live: reference.route_of(clone).cloned(),
        mac: Some(clone.mac.clone()),
    }
    .to_xml();
    // Without the seed: the agent gives fresh random bytes at every creation.
    let identity = json!({
        "version": 1,
        "name": clone.name,
        "hostname": clone.name,
        "mac": clone.mac,
        "address": clone.address_with_prefix(),
        "gateway": clone.gateway,
    })
    .to_string();
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        (CONFIG_FILE, xml.as_bytes()),
        (IDENTITY_FILE, identity.as_bytes()),
        (LAYER_FILE, layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        // The layer holds host keys.
        header.set_mode(0o600);
        header.set_cksum();
        archive
            .append_data(&mut header, name, content)
            .map_err(|error| Problem::failed(format!("could not pack {}: {error}", clone.name)))?;
    }
    let bytes = archive
        .into_inner()
        .map_err(|error| Problem::failed(format!("could not pack {}: {error}", clone.name)))?;
    Ok(Bytes::from(bytes))
}

/// All clones have the same disks: where there is no sealed root, another image that the host has stands for it.
pub(crate) fn root_disk(reference: &Reference) -> DiskSource {
    match &reference.root {
        Some(root) => DiskSource::Root(root.clone()),
        None => DiskSource::File(reference.modules.digest.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::domain_xml::RootSource;
    use estive_model::Digest;
    use std::io::Read;

    #[test]
    fn an_archive_holds_what_an_agent_reads() {
        let herd = estive_layers::herd::parse(
            "herd.yaml",
            "hosts: {a: {init: /sbin/first, root: erofs;estive;tmpfs:size=9m, words: debug}}",
            "d",
        )
        .unwrap();
        let file = |digit: &str| SharedFile {
            path: "/x".into(),
            digest: Digest::new(format!("sha256:{}", digit.repeat(64))).unwrap(),
        };
        let reference = Reference {
            name: "default".into(),
            root: Some(RootSource {
                name: file("4").digest,
                origins: vec!["https://10.77.0.5:7610".parse().unwrap()],
            }),
            route: None,
            kernel: file("1"),
            initramfs: file("2"),
            modules: file("3"),
            tree: None,
            early: None,
            sets: vec![],
        };
        let clone = &herd.clones[0];
        let bytes = pack(
            &herd.deployment,
            clone,
            &reference,
            &reference.initramfs,
            b"070701",
            None,
        )
        .unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "config.xml" {
                let xml = DomainXml::parse(&content).unwrap();
                assert_eq!(xml.kernel, file("1").digest);
                assert_eq!(
                    Some(&xml.root),
                    reference.root.clone().map(DiskSource::Root).as_ref()
                );
                assert_eq!(xml.live, None);
                let end = " estive.init=/sbin/first root=erofs;estive;tmpfs:size=9m debug";
                assert!(xml.command_line.ends_with(end), "{}", xml.command_line);
                assert_eq!(xml.uuid.len(), 36);
            }
            if name == "identity.json" {
                let identity: serde_json::Value = serde_json::from_str(&content).unwrap();
                assert_eq!(identity["address"], herd.clones[0].address_with_prefix());
                assert!(identity.get("seed").is_none());
            }
            names.push(name);
        }
        assert_eq!(names, ["config.xml", "identity.json", "layer"]);
    }
}
