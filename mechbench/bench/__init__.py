"""What `mechbench bench` measures: time, memory and growth of sequence mixers against length."""
