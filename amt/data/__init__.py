"""Data in the DexYCB layout: the reader, the YCB objects, the generator, the pipeline to the device."""
