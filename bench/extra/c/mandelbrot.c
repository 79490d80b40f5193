/* z := z^2 + c a fixed number of times, without a break */
void mandelbrot(int iterations, int h, int w, double cx[w], double cy[h], int count[h][w])
{
#pragma scop
    for (int i = 0; i < h; i++)
        for (int j = 0; j < w; j++) {
            double zr = 0.0, zi = 0.0;
            count[i][j] = 0;
            for (int t = 0; t < iterations; t++) {
                double r2 = zr * zr, i2 = zi * zi;
                zi = r2 + i2 <= 4.0 ? 2.0 * zr * zi + cy[i] : zi;
                zr = r2 + i2 <= 4.0 ? r2 - i2 + cx[j] : zr;
                count[i][j] += r2 + i2 <= 4.0 ? 1 : 0;
            }
        }
#pragma endscop
}
