//! Lists of clones as other programs read them: `/etc/hosts`, OpenMPI's host file, Ansible's
//! inventory, SSH's configuration and known hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use crate::plan::HerdPlan;

/// What lists say of a clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedClone {
    pub name: String,
    pub deployment: String,
    /// The groups it stands in, outermost first.
    pub groups: Vec<String>,
    /// Without prefix.
    pub address: String,
    pub cpus: u32,
    pub memory_mib: u64,
    /// In OpenSSH's form, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

/// How clones are listed for another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// One name a line.
    Plain,
    /// `/etc/hosts` (hosts(5)).
    Hosts,
    /// `NAME slots=CPUS` (OpenMPI's hostfile).
    MpiHostfile,
    /// An inventory of Ansible, as INI.
    Ansible,
    /// ssh_config(5).
    SshConfig,
    /// Lines of known_hosts (sshd(8)); clones without a key are left out.
    KnownHosts,
}

impl HerdPlan {
    /// The clones in the order of their names, without host keys.
    pub fn listed(&self) -> Vec<ListedClone> {
        let listed = self.clones.iter().map(|clone| ListedClone {
            name: clone.name.to_string(),
            deployment: self.deployment.to_string(),
            groups: clone.groups.clone(),
            address: clone.address.to_string(),
            cpus: clone.cpus,
            memory_mib: clone.memory_mib,
            host_key: None,
        });
        listed.collect()
    }
}

/// The text of a list; whole lines.
pub fn list_clones(format: ListFormat, clones: &[ListedClone]) -> String {
    let lines = |line: &dyn Fn(&ListedClone) -> String| clones.iter().map(line).collect();
    match format {
        ListFormat::Plain => lines(&|clone| format!("{}\n", clone.name)),
        ListFormat::Hosts => lines(&|clone| format!("{}\t{}\n", clone.address, clone.name)),
        ListFormat::MpiHostfile => lines(&|clone| format!("{} slots={}\n", clone.name, clone.cpus)),
        ListFormat::SshConfig => lines(&ssh_host),
        ListFormat::KnownHosts => lines(&known_host),
        ListFormat::Ansible => inventory(clones),
    }
}

fn ssh_host(clone: &ListedClone) -> String {
    let ListedClone {
        name,
        address,
        deployment,
        groups,
        ..
    } = clone;
    let path: Vec<&str> = [deployment.as_str()]
        .into_iter()
        .chain(groups.iter().map(String::as_str))
        .collect();
    // Names of groups hold no control characters: a comment stays one line.
    format!(
        "# {}\nHost {name}\n    HostName {address}\n    HostKeyAlias {name}\n    User root\n",
        path.join(" / ")
    )
}

/// By name, by address, and by the name that `estive ssh` asks for.
fn known_host(clone: &ListedClone) -> String {
    let Some(key) = &clone.host_key else {
        return String::new();
    };
    let ListedClone { name, address, .. } = clone;
    format!("{name},{address},estive-{name} {}\n", key.trim())
}

/// A group by its deployment and the groups around it, itself last. Of a deployment: no groups.
type GroupPath<'a> = (&'a str, &'a [String]);

fn inventory(clones: &[ListedClone]) -> String {
    let mut hosts: BTreeMap<GroupPath<'_>, Vec<&str>> = BTreeMap::new();
    let mut children: BTreeMap<GroupPath<'_>, BTreeSet<GroupPath<'_>>> = BTreeMap::new();
    let mut text = String::new();
    for clone in clones {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} ansible_host={} ansible_user=root",
            clone.name, clone.address
        );
        let path = (clone.deployment.as_str(), clone.groups.as_slice());
        hosts.entry(path).or_default().push(&clone.name);
        for depth in 0..clone.groups.len() {
            let parent = (path.0, &path.1[..depth]);
            let child = (path.0, &path.1[..=depth]);
            hosts.entry(parent).or_default();
            children.entry(parent).or_default().insert(child);
        }
    }
    let taken = clones.iter().map(|clone| clone.name.as_str());
    let names = fit_names(hosts.keys().copied(), taken);
    for (path, members) in &hosts {
        if !members.is_empty() {
            let _ = write!(text, "\n[{}]\n", names[path]);
            for member in members {
                let _ = writeln!(text, "{member}");
            }
        }
        if let Some(children) = children.get(path) {
            let _ = write!(text, "\n[{}:children]\n", names[path]);
            for child in children {
                let _ = writeln!(text, "{}", names[child]);
            }
        }
    }
    text
}

/// Names that Ansible takes for groups: letters, digits and `_`, not first a digit, none the same
/// as another's, a host's or one of Ansible's own. A name that two groups would have becomes their
/// whole paths.
fn fit_names<'a>(
    paths: impl Iterator<Item = GroupPath<'a>>,
    hosts: impl Iterator<Item = &'a str>,
) -> BTreeMap<GroupPath<'a>, String> {
    let own = |path: &GroupPath<'_>| fit(path.1.last().map_or(path.0, String::as_str));
    let paths: Vec<GroupPath<'_>> = paths.collect();
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for path in &paths {
        *count.entry(own(path)).or_default() += 1;
    }
    let ansible = ["all", "ungrouped", "localhost"];
    let mut taken: BTreeSet<String> = hosts.chain(ansible).map(str::to_owned).collect();
    let mut names = BTreeMap::new();
    for path in paths {
        let mut name = own(&path);
        if count.get(&name).is_some_and(|count| *count > 1) {
            let parts = path.1.iter().map(String::as_str);
            let whole: Vec<String> = [path.0].into_iter().chain(parts).map(fit).collect();
            name = whole.join("__");
        }
        let base = name.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        names.insert(path, name);
    }
    names
}

fn fit(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.trim().chars().map(fits).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<ListedClone> {
        let text = "
hosts: {web: {cpus: 2}}
groups:
  attack of the clones:
    hosts: {\"clone[01-02]\": }
    groups: {web: {hosts: {clone03: }}}
  2nd: {groups: {web: {hosts: {a-b: }}}}
";
        crate::herd::parse("herd.yaml", text, "first-herd")
            .unwrap()
            .listed()
    }

    #[test]
    fn every_program_gets_its_own_form() {
        let mut clones = listed();
        clones[1].host_key = Some("ssh-ed25519 AAAA root@clone01\n".to_owned());
        for (format, expected) in [
            (ListFormat::Plain, "a-b\nclone01\nclone02\nclone03\nweb\n"),
            (
                ListFormat::Hosts,
                "10.77.0.180\ta-b\n10.77.0.148\tclone01\n10.77.0.151\tclone02\n10.77.0.117\tclone03\n10.77.0.150\tweb\n",
            ),
            (
                ListFormat::MpiHostfile,
                "a-b slots=1\nclone01 slots=1\nclone02 slots=1\nclone03 slots=1\nweb slots=2\n",
            ),
            (
                ListFormat::KnownHosts,
                "clone01,10.77.0.148,estive-clone01 ssh-ed25519 AAAA root@clone01\n",
            ),
        ] {
            assert_eq!(list_clones(format, &clones), expected, "{format:?}");
        }
        let ssh = list_clones(ListFormat::SshConfig, &clones[1..2]);
        assert_eq!(
            ssh,
            "# first-herd / attack of the clones\nHost clone01\n    HostName 10.77.0.148\n    HostKeyAlias clone01\n    User root\n"
        );
    }

    #[test]
    fn ansible_gets_groups_whose_names_it_takes() {
        assert_eq!(
            list_clones(ListFormat::Ansible, &listed()),
            "a-b ansible_host=10.77.0.180 ansible_user=root
clone01 ansible_host=10.77.0.148 ansible_user=root
clone02 ansible_host=10.77.0.151 ansible_user=root
clone03 ansible_host=10.77.0.117 ansible_user=root
web ansible_host=10.77.0.150 ansible_user=root

[first_herd]
web

[first_herd:children]
_2nd
attack_of_the_clones

[_2nd:children]
first_herd___2nd__web

[first_herd___2nd__web]
a-b

[attack_of_the_clones]
clone01
clone02

[attack_of_the_clones:children]
first_herd__attack_of_the_clones__web

[first_herd__attack_of_the_clones__web]
clone03
"
        );
    }
}
