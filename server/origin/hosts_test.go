package origin

import (
	"strings"
	"testing"
)

func TestHosts_AdmitWhatIsListed(t *testing.T) {
	h, err := NewHosts([]string{"push.example", "*.Gateway.example", "192.0.2.1", "[2001:db8::1]"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"push.example": true, "PUSH.example:8080": true, "push.example.": true, "push.example.:80": true,
		"a.gateway.example": true, "gateway.example": false, "evil.example": false, "push.example.evil.example": false,
		"192.0.2.1": true, "192.0.2.1:80": true, "192.0.2.2": false, "[2001:db8::1]:443": true, "[2001:db8::1]": true,
		"[2001:db8:0::1]": true, "[2001:db8::2]": false, "localhost": false, "": false, ":80": false,
	} {
		if got := h.Admit(host); got != want {
			t.Errorf("%q is admitted: %v, want %v", host, got, want)
		}
	}
}

func TestHosts_WithoutAListAdmitAll(t *testing.T) {
	h, err := NewHosts(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !h.Admit("anything.example:1") || !h.Admit("") {
		t.Error("a host is refused")
	}
}

// A page that has its own name resolve to this machine is known by that name.
func TestHosts_PrivateOnesRefuseNamesThatOthersCouldPointHere(t *testing.T) {
	h, err := NewPrivateHosts([]string{"node1.internal"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"localhost:8081": true, "LOCALHOST": true, "a.localhost": true, "127.0.0.1:8081": true, "[::1]:8081": true, "10.2.3.4:8081": true,
		"": true, "node1.internal:8081": true, "evil.example:8081": false, "node2.internal": false, "localhost.evil.example": false,
		"127.0.0.1.evil.example": false, "notlocalhost": false,
	} {
		if got := h.Admit(host); got != want {
			t.Errorf("%q is admitted: %v, want %v", host, got, want)
		}
	}
}

func TestHosts_SayWhatIsWrongWithAName(t *testing.T) {
	for name, want := range map[string]string{
		"push.example:8080":    "the name alone",
		"https://push.example": "the name alone",
		"push.*":               "its end is open",
		"*":                    "leave the list empty",
		"":                     "no host",
		"[a":                   "syntax error",
	} {
		for _, makes := range []func([]string) (*Hosts, error){NewHosts, NewPrivateHosts} {
			if _, err := makes([]string{name}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v, want %q in it", name, err, want)
			}
		}
	}
}
