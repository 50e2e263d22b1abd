package sample

import "testing"

func TestFields_ReadKilobytesAndNumbers(t *testing.T) {
	f := fields("Name:\tcarillon\nVmRSS:\t    1708 kB\nThreads:\t9\n55fd-7ffd ---p 00000000 00:00 0   [rollup]\nRss:  12 kB\n")
	if f["VmRSS"] != 1708*1024 || f["Threads"] != 9 || f["Rss"] != 12*1024 {
		t.Errorf("got %v", f)
	}
}

func TestTCPPages_AreFoundAmongOthers(t *testing.T) {
	n, err := tcpPages("sockets: used 13\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 11\nUDP: inuse 0 mem 5\n")
	if n != 11 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := tcpPages("sockets: used 13\n"); err == nil {
		t.Error("nothing was found, without an error")
	}
}
