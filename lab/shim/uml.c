/*
 * Preloaded into user mode Linux, for two of its faults.
 *
 * It sets its guests' floating point state with PTRACE_SETREGSET and a buffer of fixed size. A host kernel takes that call
 * only with the whole of its state, which is larger where the processor has AMX (11008 bytes): it answers EFAULT, and the
 * guest panics at its first program. Here the missing end is added. It may be zero: the header that comes with the first
 * bytes says that those parts are unused, and a guest cannot use them.
 *
 * All its time comes from one timer of the host, which is set for one expiry, and for the next one when that has come.
 * Now and then that signal is lost: the clock goes on, but nothing in the guest that waits for a time wakes again, and soon
 * all stands still. Here what is set once comes again every 100 ms until it is set anew. One too many is nothing to it,
 * since it looks at the clock. When it is idle it asks whether the timer is still to come. timer.c tests this.
 */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
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

static struct timespec due; /* when what is set for one expiry expires; zero for nothing */

int timer_settime(timer_t timer, int flags, const struct itimerspec *given, struct itimerspec *before)
{
    struct itimerspec again = *given;

    due = (struct timespec){ 0, 0 };
    if (given->it_interval.tv_sec == 0 && given->it_interval.tv_nsec == 0 &&
        (given->it_value.tv_sec != 0 || given->it_value.tv_nsec != 0)) {
        again.it_interval.tv_nsec = 100000000;
        clock_gettime(CLOCK_MONOTONIC, &due);
        due.tv_sec += given->it_value.tv_sec;
        due.tv_nsec += given->it_value.tv_nsec;
        if (due.tv_nsec >= 1000000000) {
            due.tv_sec++;
            due.tv_nsec -= 1000000000;
        }
    }
    /* The C library's name for a timer that sends a signal is the host's number of it. */
    return syscall(SYS_timer_settime, (int)(intptr_t)timer, flags, &again, before);
}

int timer_gettime(timer_t timer, struct itimerspec *left)
{
    struct timespec now;

    if (syscall(SYS_timer_gettime, (int)(intptr_t)timer, left) < 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (due.tv_sec != 0 && (now.tv_sec > due.tv_sec || (now.tv_sec == due.tv_sec && now.tv_nsec >= due.tv_nsec)))
        left->it_value = (struct timespec){ 0, 0 };
    return 0;
}
