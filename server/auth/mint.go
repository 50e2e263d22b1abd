package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"carillon/server/catalog"
	"carillon/server/push"
)

// SigningKey signs device tokens. Private is []byte for HS256, *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey.
type SigningKey struct {
	ID      catalog.KeyID
	Alg     catalog.Algorithm
	Private any
}

// Claims are what a token is to say. Zero fields are left out, all but Platform.
type Claims struct {
	Product     push.ProductID
	User        push.UserID
	Device      push.DeviceID
	Platform    push.Platform
	TokenID     string
	Issued      time.Time
	NotBefore   time.Time
	Expires     time.Time
	Tags        []string
	TagPatterns []string
}

// Mint signs a device token. Products do this themselves, in whatever language; the gateway does it for development. It
// does not judge the claims: Verify does.
func Mint(k SigningKey, c Claims) (string, error) {
	var method jwt.SigningMethod
	switch k.Alg {
	case catalog.HS256:
		method = jwt.SigningMethodHS256
	case catalog.RS256:
		method = jwt.SigningMethodRS256
	case catalog.ES256:
		method = jwt.SigningMethodES256
	case catalog.EdDSA:
		method = jwt.SigningMethodEdDSA
	default:
		return "", errors.New("auth: mint: the algorithm is HS256, RS256, ES256 or EdDSA")
	}
	m := jwt.MapClaims{"plat": c.Platform.String()}
	for name, s := range map[string]string{
		"aud": string(c.Product), "sub": string(c.User), "did": string(c.Device), "jti": c.TokenID,
	} {
		if s != "" {
			m[name] = s
		}
	}
	for name, t := range map[string]time.Time{"iat": c.Issued, "nbf": c.NotBefore, "exp": c.Expires} {
		if !t.IsZero() {
			m[name] = t.Unix()
		}
	}
	for name, ss := range map[string][]string{"tags": c.Tags, "tag_patterns": c.TagPatterns} {
		if len(ss) > 0 {
			m[name] = ss
		}
	}
	t := jwt.NewWithClaims(method, m)
	t.Header["kid"] = string(k.ID)
	signed, err := t.SignedString(k.Private)
	if err != nil {
		return "", fmt.Errorf("auth: mint: the key does not fit %s", k.Alg)
	}
	return signed, nil
}
