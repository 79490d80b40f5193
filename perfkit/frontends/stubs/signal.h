#ifndef PERFKIT_SIGNAL_H
#define PERFKIT_SIGNAL_H
typedef int sig_atomic_t;
#define SIGINT 2
#define SIGSEGV 11
#define SIGTERM 15
void (*signal(int, void (*)(int)))(int);
int raise(int);
#endif
