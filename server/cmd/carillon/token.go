package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/dev"
	"carillon/server/push"
)

type tokenCmd struct {
	dataFlag
	User     string        `short:"u" required:"" help:"The user."`
	Device   string        `short:"d" required:"" help:"The device."`
	Platform string        `default:"other" enum:"other,web,android,ios,desktop,tablet,tv" help:"What the device is: ${enum}."`
	TTL      time.Duration `name:"ttl" default:"24h" help:"How long the token is good for."`
	Tag      []string      `sep:"none" help:"A tag of the device; may be repeated."`

	Product    string `placeholder:"PRODUCT" help:"The product, if not the development server's (CARILLON_PRODUCT)."`
	Kid        string `placeholder:"ID" help:"Id of the key to sign with."`
	Alg        string `enum:"HS256,RS256,ES256,EdDSA" default:"HS256" help:"Its algorithm: ${enum}."`
	SecretFile string `xor:"key" placeholder:"FILE" help:"With HS256: its secret, in base64."`
	KeyFile    string `xor:"key" placeholder:"FILE" help:"With the others: the private key, PEM."`
}

// Help is shown under --help.
func (tokenCmd) Help() string {
	return `Signs with the key of the development server, or with the one you name. Your own server makes tokens itself:
this is for development.

Example:

    carillon token --user alice --device phone --platform android`
}

// Run executes the command.
func (c *tokenCmd) Run(a *app) error {
	platform, _ := push.ParsePlatform(c.Platform)
	now := time.Now()
	claims := auth.Claims{
		Product: push.ProductID(first(c.Product, a.env(envProduct))), User: push.UserID(c.User),
		Device: push.DeviceID(c.Device), Platform: platform, Issued: now, Expires: now.Add(c.TTL), Tags: c.Tag,
	}
	key, err := c.key(a, &claims)
	if err != nil {
		return err
	}
	for _, err := range []error{claims.Product.Check(), claims.User.Check(), claims.Device.Check()} {
		if err != nil {
			return usageError{err}
		}
	}
	if c.TTL <= 0 {
		return usagef("--ttl is above zero")
	}
	token, err := auth.Mint(key, claims)
	if err != nil {
		return err
	}
	a.print("%s", token)
	return nil
}

// key returns the key to sign with, and fills in the product if it is the development server's.
func (c *tokenCmd) key(a *app, claims *auth.Claims) (auth.SigningKey, error) {
	if c.SecretFile == "" && c.KeyFile == "" {
		if c.Kid != "" {
			return auth.SigningKey{}, usagef("--kid names the key in --secret-file or --key-file; give one of them")
		}
		file, ok, err := c.load(a)
		if err != nil {
			return auth.SigningKey{}, err
		}
		if !ok || claims.Product != "" && string(claims.Product) != file.Product {
			return auth.SigningKey{}, usagef("no key: give --kid and --secret-file or --key-file, or run beside the " +
				"./data of \"carillon serve --dev\"")
		}
		claims.Product = push.ProductID(file.Product)
		return devKey(file), nil
	}
	if c.Kid == "" || claims.Product == "" {
		return auth.SigningKey{}, usagef("a key of your own needs --kid and --product")
	}
	key := auth.SigningKey{ID: catalog.KeyID(c.Kid), Alg: catalog.Algorithm(c.Alg)}
	if (c.Alg == "HS256") != (c.SecretFile != "") {
		return key, usagef("HS256 takes --secret-file, the other algorithms --key-file")
	}
	var err error
	if c.SecretFile != "" {
		key.Private, err = readSharedSecret(c.SecretFile)
	} else {
		key.Private, err = readPrivateKey(c.KeyFile)
	}
	return key, err
}

func devKey(f dev.File) auth.SigningKey {
	return auth.SigningKey{ID: catalog.KeyID(f.KeyID), Alg: catalog.HS256, Private: f.Key}
}

func readSharedSecret(path string) ([]byte, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	secret, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%s does not hold a secret in standard base64", path)
	}
	return secret, nil
}

// readPrivateKey reads a PEM private key: PKCS #8, or the older forms of RSA and elliptic curves.
func readPrivateKey(path string) (any, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, fmt.Errorf("%s holds no private key in PEM", path)
		}
		var key any
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue // parameters of a curve, a certificate
		}
		if err != nil {
			return nil, fmt.Errorf("%s: the private key cannot be read", path)
		}
		switch key.(type) {
		case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
			return key, nil
		}
		return nil, fmt.Errorf("%s: a key of that kind signs no tokens", path)
	}
}
