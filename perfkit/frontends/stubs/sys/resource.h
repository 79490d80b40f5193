#ifndef PERFKIT_SYS_RESOURCE_H
#define PERFKIT_SYS_RESOURCE_H
#include <sys/time.h>
struct rusage {
    struct timeval ru_utime, ru_stime;
    long ru_maxrss, ru_minflt, ru_majflt, ru_nvcsw, ru_nivcsw;
};
struct rlimit {
    unsigned long rlim_cur, rlim_max;
};
#define RUSAGE_SELF 0
#define RLIMIT_STACK 3
#define RLIM_INFINITY (~0UL)
int getrusage(int, struct rusage *);
int getrlimit(int, struct rlimit *);
int setrlimit(int, const struct rlimit *);
#endif
