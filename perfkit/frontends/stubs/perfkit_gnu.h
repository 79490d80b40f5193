/* Read before every source: spellings of GNU C that the parser does not know. */
#ifndef PERFKIT_GNU_H
#define PERFKIT_GNU_H
#define __attribute__(list)
#define __attribute(list)
#define __extension__
#define __inline inline
#define __inline__ inline
#define __forceinline inline
#define __restrict restrict
#define __restrict__ restrict
#define __const const
#define __const__ const
#define __volatile volatile
#define __volatile__ volatile
#define __signed signed
#define __signed__ signed
#define __asm__(...)
#define __asm(...)
#define asm(...)
#define __alignof__ _Alignof
#define __builtin_va_list char *
#define __builtin_offsetof(type, member) 0
#define __builtin_expect(value, expected) (value)
#define __builtin_assume_aligned(pointer, ...) (pointer)
#define __declspec(list)
#define __cdecl
#define __thread
#define _Thread_local
#define _Noreturn
#endif
