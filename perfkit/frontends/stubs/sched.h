#ifndef PERFKIT_SCHED_H
#define PERFKIT_SCHED_H
#include <sys/types.h>
#include <time.h>
#define SCHED_OTHER 0
#define SCHED_FIFO 1
#define SCHED_RR 2
struct sched_param {
    int sched_priority;
};
typedef struct { unsigned long bits[16]; } cpu_set_t;
int sched_yield(void);
int sched_getscheduler(pid_t);
int sched_setscheduler(pid_t, int, const struct sched_param *);
int sched_get_priority_max(int);
int sched_setaffinity(pid_t, size_t, const cpu_set_t *);
#endif
