"""Further test programs: stencils, image pipelines, dynamic programming and odd loop forms."""
