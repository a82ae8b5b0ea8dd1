/*
 * Preloaded into user mode Linux, which sets its guests' floating point state with PTRACE_SETREGSET and a buffer of
 * fixed size. A host kernel takes that call only with the whole of its state, which is larger where the processor has AMX
 * (11008 bytes): it answers EFAULT, and the guest panics at its first program. Here the missing end is added. It
 * may be zero: the header that comes with the first bytes says that those parts are unused, and a guest cannot use them.
 */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char state[65536] __attribute__((aligned(64)));
static size_t state_size;

static long set_state(long pid, void *which, const struct iovec *given)
{
    struct iovec whole = { state, sizeof state };

    if (state_size == 0) {
        if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, which, &whole) < 0)
            return -1;
        state_size = whole.iov_len;
    }
    if (given->iov_len >= state_size)
        return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, which, given);
    memcpy(state, given->iov_base, given->iov_len);
    memset(state + given->iov_len, 0, state_size - given->iov_len);
    whole.iov_len = state_size;
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, which, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list rest;
    va_start(rest, request);
    long pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);

    if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE)
        return set_state(pid, address, data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        /* The system call stores the word; the C library's function returns it. */
        long word = 0;
        if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
            return -1;
        errno = 0;
        return word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
