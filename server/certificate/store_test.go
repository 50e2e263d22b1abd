package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStore_NewFilesHoldFromTheNextHandshakeOn(t *testing.T) {
	d := &disk{}
	old := certify(t, nil, "push.example")
	s, log := open(t, d, d.write("server", old))
	before, err := connect(t, s, &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	before.echo(t)
	first := presented(t, s, &tls.Config{}).SerialNumber

	d.write("server", certify(t, nil, "push.example"))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := presented(t, s, &tls.Config{}).SerialNumber; got.Cmp(first) == 0 {
		t.Error("the old certificate is presented")
	}
	before.echo(t) // the connection that stood still stands
	if got := log.take(); !strings.Contains(got, "new files are in use") {
		t.Errorf("the log says %q", got)
	}
	if renewed, failed := s.Renewals(); renewed != 1 || failed != 0 {
		t.Errorf("%d renewed, %d failed, want one renewed", renewed, failed)
	}
	if err := s.Reload(); err != nil {
		t.Error(err)
	}
	if renewed, _ := s.Renewals(); renewed != 1 {
		t.Errorf("%d renewed after the same files were read again, want 1", renewed)
	}
}

func TestStore_BrokenFilesKeepTheOldCertificateAndAreTold(t *testing.T) {
	d := &disk{}
	good := certify(t, nil, "push.example")
	pair := d.write("server", good)
	s, log := open(t, d, pair)
	first := presented(t, s, &tls.Config{}).SerialNumber
	stranger := certify(t, nil, "push.example")
	for name, broken := range map[string]func(){
		"half written":     func() { d.put(pair.Cert, file{b: good.cert[:len(good.cert)/2]}) },
		"a key of another": func() { d.put(pair.Key, file{b: stranger.key}) },
		"gone":             func() { d.put(pair.Cert, file{err: fs.ErrNotExist}) },
		"no permission":    func() { d.put(pair.Key, file{err: fs.ErrPermission}) },
		"expired": func() {
			d.write("server", certify(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "push.example"))
		},
		"swapped for another": func() { d.put(pair.Cert, file{b: stranger.cert}) },
	} {
		log.take()
		_, failed := s.Renewals()
		broken()
		err := s.Reload()
		if err == nil || !strings.Contains(err.Error(), "server.") {
			t.Errorf("%s: Reload says %v", name, err)
		}
		if got := presented(t, s, &tls.Config{}).SerialNumber; got.Cmp(first) != 0 {
			t.Errorf("%s: another certificate is presented", name)
		}
		said := log.take()
		if !strings.Contains(said, "the old certificate stays in use") || !strings.Contains(said, "ERROR") {
			t.Errorf("%s: the log says %q", name, said)
		}
		showsNoKey(t, name, said+err.Error(), good, stranger)
		if st := s.Status(); len(st) != 1 || st[0].Err == nil || st[0].Pair != pair || st[0].NotAfter.Before(time.Now()) {
			t.Errorf("%s: the status is %+v", name, st)
		}
		if _, after := s.Renewals(); after != failed+1 {
			t.Errorf("%s: %d failures are counted, want one more than %d", name, after, failed)
		}
		d.write("server", good)
		if err := s.Reload(); err != nil {
			t.Errorf("%s: after it was mended: %v", name, err)
		}
		if st := s.Status(); st[0].Err != nil || !strings.Contains(log.take(), "good again") {
			t.Errorf("%s: after it was mended the status is %+v", name, st)
		}
	}
	if renewed, _ := s.Renewals(); renewed != 0 {
		t.Errorf("%d certificates count as renewed, and it was always the same", renewed)
	}
}

func TestStore_OneBrokenPairKeepsNoOtherFromBeingRenewed(t *testing.T) {
	d := &disk{}
	a, b := d.write("a", certify(t, nil, "a.example")), d.write("b", certify(t, nil, "b.example"))
	s, _ := open(t, d, a, b)
	first := presented(t, s, &tls.Config{ServerName: "b.example"}).SerialNumber
	d.put(a.Cert, file{b: []byte("half")})
	d.write("b", certify(t, nil, "b.example"))
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "a.pem") || strings.Contains(err.Error(), "b.pem") {
		t.Errorf("got %v, want an error about a.pem alone", err)
	}
	if presented(t, s, &tls.Config{ServerName: "b.example"}).SerialNumber.Cmp(first) == 0 {
		t.Error("the good pair was not renewed")
	}
}

// Its name is what figures go by: twice the same and none of a node's could be read any more.
func TestOpen_RefusesACertificateThatIsNamedTwice(t *testing.T) {
	d := &disk{}
	pair := d.write("server", certify(t, nil, "push.example"))
	if _, err := Open(Config{Pairs: []Pair{pair, pair}, read: d.read}); err == nil || !strings.Contains(err.Error(), "named twice") {
		t.Errorf("got %v, want that it is named twice", err)
	}
}

func TestStore_RunFindsNewFilesByItselfAndTellsAFaultOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		soon := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) }
		pair := d.write("server", certify(t, soon, "push.example"))
		s, log := open(t, d, pair)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()

		d.put(pair.Cert, file{b: []byte("half")})
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, failed := s.Renewals(); failed != 1 || strings.Count(log.take(), "ERROR") != 1 {
			t.Errorf("one fault was told %d times in an hour", failed)
		}
		late := certify(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(99 * time.Hour) }, "push.example")
		d.put(pair.Cert, file{b: late.cert}) // the certificate first, and the key a while later
		time.Sleep(time.Minute)
		d.put(pair.Key, file{b: late.key})
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := s.Status()[0]; st.Err != nil || time.Until(st.NotAfter) < 48*time.Hour {
			t.Errorf("the status is %+v, want the new certificate", st)
		}
		stop()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestStore_CertificatesThatAreNotYetGoodAreTakenWhenTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		pair := d.write("server", certify(t, nil, "push.example"))
		s, _ := open(t, d, pair)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		d.write("server", certify(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(99*time.Hour)
		}, "push.example"))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if s.Status()[0].Err == nil {
			t.Error("a certificate was taken before it held")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if st := s.Status()[0]; st.Err != nil || time.Until(st.NotAfter) < 48*time.Hour {
			t.Errorf("the status is %+v, want the new certificate", st)
		}
		stop()
		<-done
	})
}

func TestStore_ClientsGetTheCertificateThatTheyCanUse(t *testing.T) {
	d := &disk{}
	s, _ := open(t, d, d.write("a", certify(t, nil, "a.example")), d.write("b", certify(t, nil, "*.b.example")),
		d.write("rsa", certifyRSA(t, "*.b.example")))
	old := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, c := range []struct {
		ask  *tls.Config
		want string
		kind x509.PublicKeyAlgorithm
	}{
		{&tls.Config{ServerName: "a.example"}, "a.example", x509.ECDSA},
		{&tls.Config{ServerName: "www.b.example"}, "*.b.example", x509.ECDSA},
		{&tls.Config{ServerName: "www.b.example", MaxVersion: tls.VersionTLS12, CipherSuites: old}, "*.b.example", x509.RSA},
		{&tls.Config{ServerName: "other.example"}, "a.example", x509.ECDSA},
		{&tls.Config{}, "a.example", x509.ECDSA},
	} {
		got := presented(t, s, c.ask)
		if got.DNSNames[0] != c.want || got.PublicKeyAlgorithm != c.kind {
			t.Errorf("%q gets the certificate of %s, %v, want %s, %v", c.ask.ServerName, got.DNSNames, got.PublicKeyAlgorithm, c.want, c.kind)
		}
	}
}

func TestConfig_SpeaksTheNamedProtocolsAndNoOldTLS(t *testing.T) {
	d := &disk{}
	s, _ := open(t, d, d.write("server", certify(t, nil, "push.example")))
	l, err := connect(t, s, &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.client.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("they speak %q, want http/1.1", got)
	}
	if _, err := connect(t, s, &tls.Config{NextProtos: []string{"h2"}}, "http/1.1"); err == nil {
		t.Error("a client that speaks HTTP/2 alone is let in")
	}
	if _, err := connect(t, s, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if _, err := connect(t, s, &tls.Config{MinVersion: version, MaxVersion: version}); err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestStore_WarnsOfAKeyThatEverybodyCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the system has no such permissions")
	}
	m := certify(t, nil, "push.example")
	dir := t.TempDir()
	p := Pair{filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")}
	for mode, want := range map[fs.FileMode]bool{0o644: true, 0o640: false, 0o600: false} {
		for path, b := range map[string][]byte{p.Cert: m.cert, p.Key: m.key} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		j := &journal{}
		if _, err := Open(Config{Pairs: []Pair{p}, Log: slog.New(slog.NewTextHandler(j, nil))}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(j.take(), "everybody on this machine can read the key"); got != want {
			t.Errorf("mode %o: warned: %v, want %v", mode, got, want)
		}
	}
}
