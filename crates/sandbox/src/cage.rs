//! Namespaces, users, capabilities and limits: what a script cannot do.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getegid, geteuid, getpid, getrlimit,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid, unshare_unsafe,
};

use crate::limits::Limits;
use crate::mounts;

/// Users of the host that stand behind a script's root, one for each keeper: this plus its process number. Nothing of
/// the host belongs to them; systemd's table of user numbers gives this range to nobody.
const FIRST_USER: u32 = 0x7000_0000;

/// Who a script is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outside {
    /// User and group number, as this process's own user namespace counts.
    pub id: u32,
    /// We are real root: devices may be made and images mounted.
    pub is_root: bool,
}

const OWN: UnshareFlags = UnshareFlags::NEWNS
    .union(UnshareFlags::NEWPID)
    .union(UnshareFlags::NEWNET)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS)
    .union(UnshareFlags::NEWCGROUP);

/// Leaves every namespace of the host: as root directly, else as the root of a user namespace of our own.
pub(crate) fn enter_namespaces() -> Result<Outside, String> {
    let (user, group) = (geteuid(), getegid());
    // SAFETY: no flag of these parts file descriptors between threads, and there is one thread.
    let as_root = user.is_root() && unsafe { unshare_unsafe(OWN) }.is_ok();
    let outside = if as_root {
        set_thread_groups(&[]).map_err(|error| format!("leaving the groups: {error}"))?;
        Outside {
            id: outside_id(),
            is_root: true,
        }
    } else {
        // SAFETY: as above.
        unsafe { unshare_unsafe(OWN | UnshareFlags::NEWUSER) }.map_err(|error| {
            format!(
                "this machine gives an ordinary user no namespaces ({error}); run as root, or allow them \
                 (user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
            )
        })?;
        write_maps(CWD, "/proc/self", (user.as_raw(), group.as_raw()))?;
        Outside {
            id: 0,
            is_root: false,
        }
    };
    // What is mounted from here on is seen by nobody else.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|error| format!("keeping mounts to ourselves: {error}"))?;
    // The host's name is none of a script's business, and would make its output another on another host.
    rustix::system::sethostname(b"sandbox")
        .map_err(|error| format!("naming the sandbox: {error}"))?;
    rustix::system::setdomainname(b"").map_err(|error| format!("naming the sandbox: {error}"))?;
    Ok(outside)
}

/// Names root of the child's user namespace, and nobody else.
pub(crate) fn name_users(
    processes: BorrowedFd<'_>,
    child: Pid,
    outside: &Outside,
) -> Result<(), String> {
    write_maps(
        processes,
        &child.as_raw_nonzero().to_string(),
        (outside.id, outside.id),
    )
}

fn write_maps(
    base: BorrowedFd<'_>,
    process: &str,
    (user, group): (u32, u32),
) -> Result<(), String> {
    let write = |name: &str, text: String| {
        let path = format!("{process}/{name}");
        openat(base, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(std::io::Error::from)
            // One write: the kernel takes a map whole or not at all.
            .and_then(|file| File::from(file).write_all(text.as_bytes()))
            .map_err(|error| format!("writing {path} in /proc: {error}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}

/// No capability, now or by anything that is executed later.
pub(crate) fn drop_capabilities() -> Result<(), String> {
    bound_capabilities()?;
    drop_own_capabilities()
}

/// Nothing that is executed gets any.
fn bound_capabilities() -> Result<(), String> {
    let doing = |error: rustix::io::Errno| format!("dropping capabilities: {error}");
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(doing(error)),
        }
    }
    clear_ambient_capability_set().map_err(doing)?;
    use CapabilitiesSecureBits as Bits;
    let bits = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(doing)
}

fn drop_own_capabilities() -> Result<(), String> {
    let doing = |error: rustix::io::Errno| format!("dropping capabilities: {error}");
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(doing)?;
    set_no_new_privs(true).map_err(doing)
}

/// Leaves this process with no file system, network or right of the host, as far as the host lets it: where an
/// ordinary user gets no namespaces, the filter of system calls that follows stands alone.
pub(crate) fn leave_everything() -> Result<(), String> {
    let own = OWN.difference(UnshareFlags::NEWPID);
    let is_root = geteuid().is_root();
    // SAFETY: no flag of these parts file descriptors between threads, and there is one thread.
    let as_root = is_root && unsafe { unshare_unsafe(own) }.is_ok();
    // SAFETY: as above.
    let alone = as_root || unsafe { unshare_unsafe(own | UnshareFlags::NEWUSER) }.is_ok();
    if alone {
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .map_err(|error| format!("keeping mounts to ourselves: {error}"))?;
        let options = [("size", "4096".to_owned()), ("nr_inodes", "1".to_owned())];
        let empty = mounts::file_system("tmpfs", &options, false, mounts::SEALED)
            .and_then(|root| mounts::put(&root, CWD, "/").map(|()| root))
            .map_err(|error| format!("making an empty root: {error}"))?;
        mounts::enter(&empty)?;
        bound_capabilities()?;
    }
    if as_root {
        let id = outside_id();
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        set_thread_groups(&[])
            .and_then(|()| set_thread_res_gid(group, group, group))
            .and_then(|()| set_thread_res_uid(user, user, user))
            .map_err(|error| format!("becoming nobody: {error}"))?;
        // The change of user has cleared it.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| format!("binding its life to ours: {error}"))?;
    }
    drop_own_capabilities()
}

/// A user of the host that nobody else is.
fn outside_id() -> u32 {
    FIRST_USER + u32::try_from(getpid().as_raw_nonzero().get()).unwrap_or_default()
}

/// Limits of a process that renders.
pub(crate) fn limit_cell(memory_bytes: u64, cpu_s: u64) -> Result<(), String> {
    set_limit(Resource::Cpu, cpu_s, cpu_s + 1)?;
    for (resource, most) in [
        (Resource::As, memory_bytes),
        (Resource::Core, 0),
        // Of the file of its last words.
        (Resource::Fsize, 1 << 20),
    ] {
        set_limit(resource, most, most)?;
    }
    Ok(())
}

/// Limits of this process and what it starts.
pub(crate) fn limit(limits: &Limits) -> Result<(), String> {
    // One second between the signal that says why and the one that ends.
    set_limit(Resource::Cpu, limits.cpu_s, limits.cpu_s + 1)?;
    for (resource, most) in [
        (Resource::As, limits.address_space_bytes),
        (Resource::Nproc, limits.processes),
        (Resource::Nofile, limits.open_files),
        (Resource::Fsize, limits.file_size_bytes),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        set_limit(resource, most, most)?;
    }
    Ok(())
}

fn set_limit(resource: Resource, soft: u64, hard: u64) -> Result<(), String> {
    // An administrator may have set a lower one; it cannot be raised.
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit {
        current: Some(soft.min(most)),
        maximum: Some(hard.min(most)),
    };
    setrlimit(resource, limit).map_err(|error| format!("limiting {resource:?}: {error}"))
}
