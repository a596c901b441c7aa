"""What an operating system has to be told or asked: a quick start, idle threads, cores, the end of processes."""
