# Prints `prog N`, `map N`, `link N` for every BPF object of the kernel.
my %next = (prog => 11, map => 12, link => 31);
for my $kind (sort keys %next) {
    my $id = 0;
    while (1) {
        my $attr = pack("L3", $id, 0, 0);
        last if syscall(321, $next{$kind}, $attr, length $attr) != 0;
        $id = unpack("x4 L", $attr);
        print "$kind $id\n";
    }
}
