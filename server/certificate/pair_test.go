package certificate

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOpen_SaysWhatIsWrongAndWhatToDo(t *testing.T) {
	good, other := certify(t, nil, "push.example"), certify(t, nil, "push.example")
	changed := func(change func(*x509.Certificate)) made { return certify(t, change, "push.example") }
	pair := Pair{"server.pem", "server.key"}
	cases := []struct {
		name      string
		cert, key file
		want      []string
	}{
		{"no certificate there", file{err: fs.ErrNotExist}, file{b: good.key}, []string{"server.pem is not there"}},
		{"no key there", file{b: good.cert}, file{err: fs.ErrNotExist}, []string{"server.key is not there"}},
		{
			"a key without permission", file{b: good.cert}, file{err: fs.ErrPermission},
			[]string{"server.key cannot be read", "let the user that runs the server read it"},
		},
		{"a disk that fails", file{err: errors.New("input/output error")}, file{b: good.key}, []string{"cannot be read: input/output"}},
		{"swapped", file{b: good.key}, file{b: good.cert}, []string{"are the two files swapped?"}},
		{"the certificate twice", file{b: good.cert}, file{b: good.cert}, []string{"holds a certificate and no key"}},
		{"no PEM", file{b: []byte("certificate")}, file{b: good.key}, []string{"no certificate in PEM"}},
		{"no key in PEM", file{b: good.cert}, file{b: []byte("key")}, []string{"no private key in PEM"}},
		{"empty files", file{}, file{}, []string{"no certificate in PEM"}},
		{
			"an encrypted key", file{b: good.cert}, file{b: pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})},
			[]string{"is encrypted", "openssl pkey -in server.key"},
		},
		{
			"a key encrypted in the old way", file{b: good.cert}, file{b: pem.EncodeToMemory(&pem.Block{
				Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte{1},
			})},
			[]string{"is encrypted"},
		},
		{"a key of another", file{b: good.cert}, file{b: other.key}, []string{"do not belong together"}},
		{"another certificate first", file{b: append(bytes.Clone(other.cert), good.cert...)}, file{b: good.key}, []string{"not the first"}},
	}
	expired := changed(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := changed(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	nameless := changed(func(c *x509.Certificate) { c.DNSNames = nil; c.Subject.CommonName = "push.example" })
	client := changed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	for _, c := range []struct {
		name string
		m    made
		want string
	}{
		{"expired", expired, "ran out on"}, {"early", early, "holds only from"}, {"nameless", nameless, "names no host"},
		{"for clients", client, "not for servers"},
	} {
		cases = append(cases, struct {
			name      string
			cert, key file
			want      []string
		}{c.name, file{b: c.m.cert}, file{b: c.m.key}, []string{c.want, "server.pem"}})
	}
	for _, c := range cases {
		d := &disk{}
		d.put(pair.Cert, c.cert)
		d.put(pair.Key, c.key)
		s, err := Open(Config{Pairs: []Pair{pair}, read: d.read})
		if err == nil || s != nil {
			t.Errorf("%s: it opened", c.name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, want %q in it", c.name, err, want)
			}
		}
		showsNoKey(t, c.name, err.Error(), good, other)
	}
}

// showsNoKey checks that a text holds no line of a key.
func showsNoKey(t *testing.T, name, text string, of ...made) {
	t.Helper()
	for _, m := range of {
		block, _ := pem.Decode(m.key)
		secret := base64.StdEncoding.EncodeToString(block.Bytes)
		for i := 0; i+24 <= len(secret); i += 8 {
			if strings.Contains(text, secret[i:i+24]) {
				t.Errorf("%s: a part of a key is shown", name)
				return
			}
		}
	}
}

func TestOpen_TellsEveryPairThatIsWrong(t *testing.T) {
	d := &disk{}
	good := d.write("good", certify(t, nil, "push.example"))
	_, err := Open(Config{Pairs: []Pair{{"a.pem", "a.key"}, good, {"b.pem", "b.key"}}, read: d.read})
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "a.pem") || !strings.Contains(err.Error(), "b.pem") {
		t.Errorf("got %v, want a line for each of the two", err)
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("it opened without files")
	}
}

func TestOpen_TakesBothFromOneFileAndCertificatesOfAddresses(t *testing.T) {
	m := certify(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} })
	path := filepath.Join(t.TempDir(), "both.pem")
	if err := os.WriteFile(path, append(m.key, m.cert...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Pairs: []Pair{{path, path}}}); err != nil {
		t.Error(err)
	}
}

func TestOpen_FilesHaveASizeAndADirectoryIsNone(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.pem")
	if err := os.WriteFile(large, bytes.Repeat([]byte("a"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{large, dir} {
		if _, err := Open(Config{Pairs: []Pair{{path, path}}}); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}
