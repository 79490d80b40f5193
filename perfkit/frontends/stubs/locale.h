#ifndef PERFKIT_LOCALE_H
#define PERFKIT_LOCALE_H
#define LC_ALL 6
char *setlocale(int, const char *);
#endif
