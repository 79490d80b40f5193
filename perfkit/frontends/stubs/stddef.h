#ifndef PERFKIT_STDDEF_H
#define PERFKIT_STDDEF_H
typedef unsigned long size_t;
typedef long ptrdiff_t;
typedef int wchar_t;
typedef struct { long double perfkit_largest; } max_align_t;
#undef NULL
#define NULL ((void *)0)
#define offsetof(type, member) ((size_t)0)
#endif
