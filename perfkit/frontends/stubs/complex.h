#ifndef PERFKIT_COMPLEX_H
#define PERFKIT_COMPLEX_H
#define complex _Complex
#define _Complex_I (perfkit_imaginary_unit())
#define I _Complex_I
float _Complex perfkit_imaginary_unit(void);
double cabs(double _Complex);
double carg(double _Complex);
double creal(double _Complex);
double cimag(double _Complex);
double _Complex conj(double _Complex);
double _Complex cexp(double _Complex);
double _Complex csqrt(double _Complex);
float cabsf(float _Complex);
float crealf(float _Complex);
float cimagf(float _Complex);
float _Complex conjf(float _Complex);
float _Complex cexpf(float _Complex);
#endif
