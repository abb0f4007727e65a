//! System calls that a script has no business with, refused by the kernel (seccomp).
//!
//! Namespaces and missing rights stop most of this already. The filter stops what they do not: sockets of the
//! reference's directory that a daemon of the host listens on, memory that no limit counts (memfds, System V shared
//! memory), and the parts of the kernel where most of its holes were found.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// Refused with "operation not permitted".
const REFUSED: &[libc::c_long] = &[
    // Talking to others.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    // Memory that outlives its process or is counted nowhere.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_remap_file_pages,
    // Other processes' insides.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Large and seldom needed parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_vmsplice,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Where its flags lie in memory a filter cannot look: the C library then uses `clone`, whose flags are looked at.
const UNKNOWN: &[libc::c_long] = &[libc::SYS_clone3];

/// Namespaces asked for with `clone`.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// All that a process that renders may ask for: memory, its pipes, and its own end.
const OF_A_CELL: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// From here on, for this process: everything else is refused.
pub(crate) fn apply_to_cell() -> Result<(), String> {
    let programs = cell_programs().map_err(words)?;
    for program in programs {
        seccompiler::apply_filter(&program).map_err(words)?;
    }
    Ok(())
}

fn cell_programs() -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        OF_A_CELL.iter().map(|call| (*call, Vec::new())).collect();
    // How the C library aborts; nobody else may be sent a signal.
    let own = u64::from(std::process::id());
    let to_itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
    allowed.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![to_itself])?]);
    let filter = SeccompFilter::new(
        allowed,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(vec![only_own_numbers(), filter.try_into()?])
}

/// From here on, for this process and what it starts.
pub(crate) fn apply_to_script() -> Result<(), String> {
    for program in programs().map_err(words)? {
        seccompiler::apply_filter(&program).map_err(words)?;
    }
    Ok(())
}

fn words(error: seccompiler::Error) -> String {
    format!("filtering its system calls: {error}")
}

fn programs() -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut with_namespaces = Vec::new();
    for flag in NAMESPACES {
        let flag = u64::from(flag.cast_unsigned());
        let condition = SeccompCondition::new(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )?;
        with_namespaces.push(SeccompRule::new(vec![condition])?);
    }
    refused.insert(libc::SYS_clone, with_namespaces);
    let unknown = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    let mut programs = vec![only_own_numbers()];
    for (rules, error) in [(refused, libc::EPERM), (unknown, libc::ENOSYS)] {
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(error.cast_unsigned()),
            std::env::consts::ARCH.try_into()?,
        )?;
        programs.push(filter.try_into()?);
    }
    Ok(programs)
}

/// The same calls have second numbers on x86-64 (the x32 ABI), which the other filters do not know: refused.
fn only_own_numbers() -> BpfProgram {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        // The number of the call, first in `struct seccomp_data`.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_GREATER_OR_EQUAL, 0, 1, X32_BIT),
        step(
            RETURN,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_made_for_this_machine() {
        let programs = programs().unwrap();
        assert_eq!(programs.len(), 3);
        let programs = [programs, cell_programs().unwrap()].concat();
        assert!(programs.iter().all(|program| program.len() < 4096));
    }
}
