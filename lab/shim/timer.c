/*
 * What uml.c promises of a timer, which has it preloaded. Its exit status is the line of what does not hold.
 */
#include <signal.h>
#include <stddef.h>
#include <time.h>

#define HOLDS(what) do { if (!(what)) return __LINE__; } while (0)

static int comes(long milliseconds)
{
    struct timespec limit = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    sigset_t alarm;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    return sigtimedwait(&alarm, NULL, &limit) == SIGALRM;
}

int main(void)
{
    struct itimerspec once = { { 0, 0 }, { 0, 20000000 } }, never = { { 0, 0 }, { 0, 0 } }, left;
    sigset_t alarm;
    timer_t timer;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm, NULL);
    HOLDS(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);

    /* It is to come until it has, and comes again if nobody sets it anew: the first may have been lost. */
    HOLDS(timer_settime(timer, 0, &once, NULL) == 0);
    HOLDS(timer_gettime(timer, &left) == 0 && left.it_value.tv_nsec > 0);
    HOLDS(comes(5000));
    HOLDS(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    HOLDS(comes(5000));
    HOLDS(comes(5000));

    /* Set for later, or for never, it does not come before. */
    once.it_value.tv_sec = 3600;
    HOLDS(timer_settime(timer, 0, &once, NULL) == 0);
    HOLDS(!comes(300));
    HOLDS(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec > 3000);
    HOLDS(timer_settime(timer, 0, &never, NULL) == 0);
    HOLDS(!comes(300));
    return 0;
}
