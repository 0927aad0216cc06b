//! The program that the kernel runs over each packet of a link, so that only those to the client's port wake this process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::frame::CLIENT_PORT;

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel's codes are below 256")]
const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// UDP of IPv4, not a later fragment, to the client's port. The packet begins with its IP header.
const PROGRAM: [libc::sock_filter; 8] = [
    statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 9),
    jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 17, 0, 5),
    statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 6),
    jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0x1fff, 3, 0),
    statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0),
    statement(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 2),
    jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, CLIENT_PORT as u32, 1, 0),
    statement(libc::BPF_RET | libc::BPF_K, 0),
];
const ACCEPT: libc::sock_filter = statement(libc::BPF_RET | libc::BPF_K, u32::MAX);

/// Attaches the program to a packet socket.
pub(crate) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = PROGRAM.to_vec();
    program.push(ACCEPT);
    let filter = libc::sock_fprog { len: 9, filter: program.as_mut_ptr() };
    let length = u32::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default();
    // SAFETY: the kernel copies the program, which outlives the call, and writes nothing.
    #[expect(unsafe_code, reason = "rustix has no socket filters")]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
